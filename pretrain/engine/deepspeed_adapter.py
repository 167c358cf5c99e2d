"""The only module that imports deepspeed: ZeRO-3 behind methods that say what they mean.

Contract: everything that Twofold uses of DeepSpeed beyond its documented interface is read or replaced here. Some of
it is private, so `ZeroModel` checks at start that each attribute exists and means what is assumed, and raises a
one-line `UserError` otherwise, before a weight is set. Methods are collective unless they say otherwise.

An update takes two calls: `grad_norm`, then `step` or `skip_step`. DeepSpeed computes the norm inside of its own step
and has no way to refuse a finite gradient, so its `_get_norm_groups` is replaced: inside of the step it returns the
norms that are known by then, or -1, DeepSpeed's own mark of an invalid norm, on which it drops the gradients.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import deepspeed
import deepspeed.ops
import torch
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_local_fp32_param,
    safe_get_local_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
    set_z3_leaf_modules,
)
from torch import Tensor, nn

from pretrain.checkpoints.training_state import FIRST_MOMENT, MASTER, SECOND_MOMENT, part_bounds
from pretrain.engine.distributed import Ranks
from twofold.errors import UserError, user_error

TESTED_VERSIONS = ("0.19.8",)

_ENGINE = ("module", "optimizer", "backward", "step", "was_step_applied", "set_gradient_accumulation_boundary")
_ZERO = (
    *("_get_norm_groups", "averaged_gradients", "fp16_groups", "fp32_partitioned_groups_flat"),
    *("grad_partitions_flat_buffer", "ipg_buckets", "lp_param_buffer", "offload_optimizer", "offload_param"),
    *("optimizer", "param_groups", "checkpoint_event_prologue", "checkpoint_event_epilogue"),
)
_PARAMETER = ("ds_numel", "ds_persist", "ds_tensor")


def start_ranks(device: str) -> Ranks:
    """Join the process group that the launcher prepared (RANK, LOCAL_RANK, WORLD_SIZE)."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    chosen = deepspeed.accelerator.get_accelerator().device_name()
    if chosen != device:
        hint = f"set DS_ACCELERATOR={device} in the environment, or pass --device {chosen}"
        raise user_error("--device", device, f"is not what DeepSpeed found ({chosen})", hint)
    if device == "cuda":
        where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(where)
        deepspeed.init_distributed("nccl")
    else:
        where = torch.device("cpu")
        # DeepSpeed would compile a shared-memory collective with the user's C++ compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed("gloo")
        local_ranks = int(os.environ.get("LOCAL_SIZE", os.environ.get("WORLD_SIZE", "1")))
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_ranks))
    return Ranks(deepspeed.comm.get_rank(), deepspeed.comm.get_world_size(), where)


def partitioned_init(config: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """A context in which each new parameter is partitioned over the ranks at once."""
    context: AbstractContextManager[Any] = deepspeed.zero.Init(config_dict_or_path=dict(config))
    return context


class ZeroModel:
    """A model whose parameters, gradients and Adam moments are partitioned over the ranks by ZeRO-3.

    A rank's part of a parameter is the range `bounds` of its flattened elements.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: Mapping[str, Any],
        ranks: Ranks,
        leaf_modules: Sequence[type[nn.Module]] = (),
    ) -> None:
        """`leaf_modules`: classes whose parameters are gathered as a whole, with no hooks inside."""
        if leaf_modules:
            set_z3_leaf_modules(model, list(leaf_modules))
        self._ranks = ranks
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=dict(config))
        check_assumptions(self._engine, ranks.size)
        self.module: Any = self._engine.module
        self.parameters: dict[str, Any] = dict(self.module.named_parameters())
        self._zero = self._engine.optimizer
        self._compute_norms = self._zero._get_norm_groups
        self._zero._get_norm_groups = self._take_norms
        self._norms: list[Any] | None = None

    def __call__(self, *inputs: Any) -> Any:
        return self._engine(*inputs)

    def train(self, mode: bool) -> None:
        """Choose training or evaluation mode. Not collective."""
        self._engine.train(mode)

    def set_boundary(self, is_last: bool) -> None:
        """Say whether the next backward pass is the last one before an update. Not collective."""
        self._engine.set_gradient_accumulation_boundary(is_last)

    def backward(self, objective: Tensor) -> None:
        """Add the gradients of `objective` to those of the earlier passes since the last update."""
        self._engine.backward(objective, scale_wrt_gas=False)

    def gradients(self) -> list[list[Tensor]]:
        """This rank's parts of the accumulated gradients, by parameter group, before clipping. Not collective."""
        groups, found = self._zero.fp16_groups, self._zero.averaged_gradients
        if self._zero.offload_optimizer:
            return []
        if [len(found.get(number) or ()) for number in range(len(groups))] != [len(group) for group in groups]:
            raise _broken_meanwhile("averaged_gradients does not hold one gradient per parameter")
        return [list(found[number]) for number in range(len(groups))]

    def grad_norm(self) -> float:
        """Global norm of the accumulated gradients before clipping; NaN if one of them is not finite."""
        self.gradients()
        self._norms = self._compute_norms()
        norms_G = torch.stack([torch.as_tensor(norm) for norm in self._norms])
        if norms_G.shape != (len(self._zero.fp16_groups),):
            raise _broken_meanwhile("_get_norm_groups does not return one norm per parameter group")
        global_norm = torch.linalg.vector_norm(norms_G)
        return float(torch.where((norms_G < 0).any(), torch.nan, global_norm))  # one wait for the device

    def step(self, lr: float) -> None:
        """Clip the gradients whose norm `grad_norm` returned and update the weights."""
        for group in self._zero.param_groups:
            group["lr"] = lr
        self._finish_step(updates=True)

    def skip_step(self) -> None:
        """Drop the gradients whose norm `grad_norm` returned; weights and moments stay as they are."""
        assert self._norms is not None, "call grad_norm first"
        self._norms = [torch.full_like(torch.as_tensor(norm), -1.0) for norm in self._norms]
        self._finish_step(updates=False)

    def bounds(self, name: str) -> tuple[int, int]:
        """First and last-but-one element that this rank holds of a parameter. Not collective."""
        return part_bounds(self.elements(name), self._ranks.rank, self._ranks.size)

    def elements(self, name: str) -> int:
        """Elements of the whole parameter. Not collective."""
        return int(self.parameters[name].ds_numel)

    @contextmanager
    def replacing_parts(self) -> Iterator[None]:
        """A context for `set_part`."""
        self._zero.checkpoint_event_prologue()
        yield
        self._zero.checkpoint_event_epilogue()

    def set_part(self, kind: str, name: str, part: Tensor) -> None:
        """Set this rank's part of a parameter's weight or moment. Not collective."""
        parameter = self.parameters[name]
        padded = torch.zeros(parameter.ds_tensor.numel(), dtype=torch.float32, device=self._ranks.device)
        padded[: part.numel()] = part.to(self._ranks.device)  # ZeRO's parts are equally long on all ranks
        if kind == MASTER:
            parameter.ds_tensor.data.copy_(padded)
            safe_set_local_fp32_param(parameter, padded)
        else:
            safe_set_local_optimizer_state(parameter, padded, kind)

    def part(self, kind: str, name: str) -> Tensor:
        """A float32 copy in host memory of this rank's part of a weight or moment. Not collective."""
        parameter = self.parameters[name]
        if kind == MASTER:
            padded = safe_get_local_fp32_param(parameter)
        else:
            padded = safe_get_local_optimizer_state(parameter, kind)
        first, end = self.bounds(name)
        return torch.empty(end - first).copy_(padded[: end - first])

    def full_weight(self, name: str) -> Tensor:
        """A parameter's float32 master weight, gathered from all ranks."""
        weight: Tensor = safe_get_full_fp32_param(self.parameters[name]).detach()
        return weight

    @property
    def optimizer_steps(self) -> int | None:
        """Updates so far, over all restarts; None before Adam has moments. Not collective."""
        states = self._adam_states().values()
        return int(next(iter(states))["step"]) if states else None

    def make_moments(self, steps: int) -> None:
        """Give Adam zero moments, as of after `steps` updates. Not collective."""
        for flat in self._zero.fp32_partitioned_groups_flat:
            self._adam_states()[flat] = {
                "step": torch.tensor(float(steps), dtype=torch.float32, device=flat.device),
                FIRST_MOMENT: torch.zeros_like(flat),
                SECOND_MOMENT: torch.zeros_like(flat),
            }

    def state_bytes(self) -> dict[str, int]:
        """Bytes that this rank holds between steps, by cause. Not collective."""
        zero = self._zero
        moments = [value for state in self._adam_states().values() for value in state.values() if value.dim()]
        persistent = [parameter for parameter in self.parameters.values() if parameter.ds_persist]
        masters = {tensor.data_ptr(): _bytes(tensor) for tensor in zero.fp32_partitioned_groups_flat}
        shared = zero.lp_param_buffer.data_ptr() in masters
        return {
            "parameters": _bytes(zero.lp_param_buffer),
            "master weights": 0 if shared else sum(masters.values()),
            "gradients": _bytes(zero.grad_partitions_flat_buffer),
            "moments": sum(map(_bytes, moments)),
            "reduce bucket": sum(_bytes(bucket.buffer) for bucket in zero.ipg_buckets.values()),
            "whole small parameters": sum(map(_bytes, persistent)) if self._ranks.size > 1 else 0,
        }

    def _adam_states(self) -> dict[Tensor, Any]:
        """The state of torch's optimizer inside of ZeRO's, by flat partition."""
        states: dict[Tensor, Any] = self._zero.optimizer.state
        return states

    def _take_norms(self) -> list[Any]:
        """What DeepSpeed's step gets for its gradient norms."""
        norms, self._norms = self._norms, None
        assert norms is not None, "call grad_norm before step"
        return norms

    def _finish_step(self, updates: bool) -> None:
        self._engine.step()
        if self._norms is not None or self._engine.was_step_applied() != updates:
            raise _broken_meanwhile("step does not decide by the norms of _get_norm_groups")


def check_assumptions(engine: Any, ranks: int) -> None:
    """Raise `UserError` if this DeepSpeed differs from what the methods of `ZeroModel` assume. Not collective."""
    parameters = list(engine.module.parameters()) if hasattr(engine, "module") else []
    needed = [("the engine has", engine, _ENGINE), ("the optimizer has", getattr(engine, "optimizer", None), _ZERO)]
    needed += [("parameters have", parameter, _PARAMETER) for parameter in parameters]
    for owner, value, names in needed:
        for name in names:
            # DeepSpeed allocates this one only where parameters stay on the device.
            if not hasattr(value, name) and not (name == "lp_param_buffer" and getattr(value, "offload_param", False)):
                raise _broken(f"{owner} no {name}")
    for problem, holds in {**_of_parameters(parameters, ranks), **_of_state(engine.optimizer, parameters)}.items():
        if not holds:
            raise _broken(problem)


def _of_parameters(parameters: Sequence[Any], ranks: int) -> dict[str, bool]:
    """Problem -> whether it is absent."""
    shares = [(-(-parameter.ds_numel // ranks),) for parameter in parameters]
    parts = [tuple(parameter.ds_tensor.shape) for parameter in parameters]
    return {
        "a parameter's ds_tensor is not an equal share of its ds_numel elements": parts == shares,
        "a parameter's ds_persist is not true or false": all(isinstance(p.ds_persist, bool) for p in parameters),
    }


def _of_state(zero: Any, parameters: Sequence[Any]) -> dict[str, bool]:
    """Problem -> whether it is absent."""
    total = sum(parameter.ds_tensor.numel() for parameter in parameters)
    dtypes = {parameter.ds_tensor.dtype for parameter in parameters}
    sizes = [sum(parameter.ds_tensor.numel() for parameter in group) for group in zero.fp16_groups]
    groups = [((size,), torch.float32) for size in sizes]
    flats = [_kind(flat) for flat in zero.fp32_partitioned_groups_flat]
    gradients = _kind(zero.grad_partitions_flat_buffer)
    weights = [] if zero.offload_param else [_kind(zero.lp_param_buffer)]
    buckets = zero.ipg_buckets.values() if isinstance(zero.ipg_buckets, dict) else [None]
    return {
        "_get_norm_groups is not a method": callable(zero._get_norm_groups),
        "averaged_gradients is not an empty dictionary before the first backward pass": zero.averaged_gradients == {},
        "fp16_groups does not hold every parameter once": sum(sizes) == total,
        "fp32_partitioned_groups_flat does not hold one flat float32 tensor per group of fp16_groups": flats == groups,
        "grad_partitions_flat_buffer is not one float32 gradient per element": gradients == ((total,), torch.float32),
        "lp_param_buffer does not hold every parameter's elements in its own type": all(
            weight == ((total,), dtype) for weight in weights for dtype in dtypes
        ),
        "ipg_buckets is not a dictionary of buckets with a buffer": all(hasattr(b, "buffer") for b in buckets),
        "the optimizer's optimizer is not torch's": isinstance(zero.optimizer, torch.optim.Optimizer),
        "a group of param_groups has no lr": all("lr" in group for group in zero.param_groups),
    }


def _kind(tensor: Tensor) -> tuple[tuple[int, ...], torch.dtype]:
    return tuple(tensor.shape), tensor.dtype


def _broken(problem: str) -> UserError:
    tested = ", ".join(TESTED_VERSIONS)
    hint = f"install a tested version: pip install deepspeed=={TESTED_VERSIONS[-1]}"
    return user_error("DeepSpeed", deepspeed.__version__, f"{problem}; tested versions: {tested}", hint)


def _broken_meanwhile(problem: str) -> RuntimeError:
    """In training, where a restart may help: the same assumption held when this process started."""
    return RuntimeError(str(_broken(problem)))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
