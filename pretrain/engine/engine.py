"""The model under DeepSpeed ZeRO-3; the only module that imports deepspeed.

Contract: `accumulate` runs the micro-batches of this rank's rows of a global batch, `apply` makes the
one optimizer step that they add up to, at the learning rate it is given; nothing here knows of phases,
plans or files. Every method is collective. Weights are float32 masters with a copy in the engine's
precision. `apply` asks before it changes anything: a gradient that the caller refuses, or whose norm is
not finite, is dropped by all ranks alike (the norm is the same on all after its reduction).

Training state goes out (`parts`) and in (`restore`) as float32 parts of parameters, never through
DeepSpeed's own checkpoints: those are pickles, tied to one number of ranks until converted, give every
parameter group the first one's hyperparameters when converted, and cannot be loaded by an engine that
saved before.

Cost of `full_weights`: one parameter in float32 at a time on each rank, one all-gather each.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
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
from torch import Tensor

from configs.schema import Optimizer, Recipe
from pretrain.checkpoints.training_state import FIRST_MOMENT, KINDS, MASTER, SECOND_MOMENT, SavedTensors, part_bounds
from pretrain.engine.distributed import Ranks
from pretrain.engine.ds_config import deepspeed_config
from pretrain.model.attention import document_bounds, fastest_first
from pretrain.model.backends import Kernels, choose, install
from pretrain.model.decoder import EMBEDDING, Block, Decoder
from twofold.errors import user_error

Accepts = Callable[[float], bool]
"""Gradient norm -> whether to follow it."""


def start_ranks(device: str) -> Ranks:
    """Join the process group that the launcher prepared (RANK, LOCAL_RANK, WORLD_SIZE)."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    chosen = deepspeed.accelerator.get_accelerator().device_name()
    if chosen != device:
        raise user_error(
            "--device", device, f"is not what DeepSpeed found ({chosen})",
            f"set DS_ACCELERATOR={device} in the environment, or pass --device {chosen}",
        )  # fmt: skip
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        torch.cuda.set_device(local_rank)
        deepspeed.init_distributed("nccl")
        where = torch.device("cuda", local_rank)
    else:
        # DeepSpeed would compile a shared-memory collective with the user's C++ compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed("gloo")
        local_ranks = int(os.environ.get("LOCAL_SIZE", os.environ.get("WORLD_SIZE", "1")))
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_ranks))
        where = torch.device("cpu")
    return Ranks(deepspeed.comm.get_rank(), deepspeed.comm.get_world_size(), where)


class Engine:
    """Model, optimizer and gradient accumulation."""

    def __init__(self, recipe: Recipe, ranks: Ranks, kernels: Kernels | None = None) -> None:
        """`kernels`: instead of what the recipe and the device decide; for tests and benchmarks."""
        self.ranks = ranks
        self.kernels = kernels or choose(recipe, ranks.device)
        self._micro_batch = recipe.engine.micro_batch_size
        torch.use_deterministic_algorithms(recipe.engine.deterministic)
        config = deepspeed_config(recipe, ranks.size, ranks.device.type)
        with deepspeed.zero.Init(config_dict_or_path=config):
            model = Decoder(recipe.model, recipe.tokenizer.vocab_size, linear=self.kernels.linear)
        install(model, self.kernels)
        if self.kernels.compiler is not None:
            # ZeRO-3 gathers a block as a whole: its hooks stand round the graph, none inside.
            set_z3_leaf_modules(model, [Block])
        optimizer = _optimizer(model, recipe.optimizer)
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        self._parameters = dict(self._engine.module.named_parameters())
        self._accepts: Accepts = lambda _norm: True
        self._norm = float("nan")
        self._norms_of_groups = self._engine.optimizer._get_norm_groups
        self._engine.optimizer._get_norm_groups = self._judged_norms

    def set_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Set every parameter from (name, value); each rank keeps its own part of each value."""
        missing = set(self._parameters)
        self._engine.optimizer.checkpoint_event_prologue()
        for name, value in weights:
            parameter = self._parameters[name]
            first, end = part_bounds(parameter.ds_numel, self.ranks.rank, self.ranks.size)
            self._set_weight_part(parameter, value.reshape(-1)[first:end])
            missing.remove(name)
        self._engine.optimizer.checkpoint_event_epilogue()
        assert not missing, f"no weights for {sorted(missing)}"

    def accumulate(
        self, batch_BU: Tensor, z_weight: float, intra_document_masking: bool = False
    ) -> tuple[float, float]:
        """Add up the gradients of this rank's B sequences of U = T + 1 tokens, int64.

        Returns the means over them of the cross-entropy (nats a token) and of log²(Z), before its weight.
        """
        micro_batches = torch.split(batch_BU, self._micro_batch)
        self._engine.train()
        means = torch.zeros(2, dtype=torch.float64, device=self.ranks.device)
        with fastest_first(self.ranks.device) if self.kernels.ordered_attention else nullcontext():
            for number, micro_BU in enumerate(micro_batches, start=1):
                self._engine.set_gradient_accumulation_boundary(number == len(micro_batches))
                means += self._accumulate(micro_BU, z_weight, intra_document_masking, len(micro_batches))
        loss_mean, z_mean = means.tolist()  # the only wait for the device
        return loss_mean, z_mean

    def _accumulate(self, micro_BU: Tensor, z_weight: float, intra_document_masking: bool, parts: int) -> Tensor:
        """One forward and backward pass; its part of `accumulate`'s two means, on the device."""
        tokens_BT, bounds_S = micro_BU[:, :-1], None
        if intra_document_masking and self.kernels.document_bounds:
            bounds_S = self._to_device(document_bounds(tokens_BT))
        micro_BU = self._to_device(micro_BU)
        nll_BT, log_z_BT = self._engine(micro_BU[:, :-1], micro_BU[:, 1:], intra_document_masking, bounds_S)
        loss, z_loss = nll_BT.mean(), log_z_BT.square().mean()
        objective = loss + z_weight * z_loss if z_weight else loss
        self._engine.backward(objective / parts, scale_wrt_gas=False)
        return torch.stack((loss.detach(), z_loss.detach())) / parts

    def _to_device(self, values: Tensor) -> Tensor:
        """A copy that the host does not wait for: from pageable memory it would."""
        if self.ranks.device.type == "cuda" and values.device.type == "cpu":
            values = values.pin_memory()
        return values.to(self.ranks.device, non_blocking=True)

    def apply(self, lr: float, accepts: Accepts) -> tuple[float, bool]:
        """Step with the accumulated gradients if `accepts(norm)`, else drop them; (global norm, applied).

        The norm is the one before clipping, not finite (or -1) when the gradients were not.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        self._accepts = accepts
        self._engine.step()
        return self._norm, self._engine.was_step_applied()

    @torch.no_grad()
    def token_losses(self, batch_BU: Tensor) -> Tensor:
        """-log p of each next token, float32 BT, of this rank's sequences; no gradient."""
        self._engine.eval()
        batch_BU = batch_BU.to(self.ranks.device)
        nll_BT: Tensor = self._engine(batch_BU[:, :-1], batch_BU[:, 1:])[0]
        return nll_BT

    @torch.no_grad()
    def next_logits(self, tokens_BT: Tensor) -> Tensor:
        """Logits V, float32 on the host, of the token after the first sequence; all ranks pass the same."""
        self._engine.eval()
        logits_BTV: Tensor = self._engine(tokens_BT.to(self.ranks.device))
        return logits_BTV[0, -1].float().cpu()

    def full_weights(self) -> Iterator[tuple[str, Tensor]]:
        """(name, float32 master weight) of every parameter, gathered one at a time."""
        for name, parameter in self._parameters.items():
            yield name, safe_get_full_fp32_param(parameter).detach()

    @property
    def optimizer_steps(self) -> int:
        """Updates made so far, over all restarts."""
        states = self._adam().state.values()
        return int(next(iter(states))["step"]) if states else 0

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """This rank's parts of the training state, copied to host memory (see training_state.py)."""
        if not self._adam().state:
            self._make_moments(0)
        return {kind: {name: self._part(kind, name) for name in self._parameters} for kind in KINDS}

    def restore(self, saved: SavedTensors, optimizer_steps: int) -> None:
        """Take weights and moments from a checkpoint of any number of ranks; each rank reads its parts."""
        self._make_moments(optimizer_steps)
        self._engine.optimizer.checkpoint_event_prologue()
        for name, parameter in self._parameters.items():
            elements = parameter.ds_numel
            first, end = part_bounds(elements, self.ranks.rank, self.ranks.size)
            self._set_weight_part(parameter, saved.read(MASTER, name, elements, first, end))
            for kind in (FIRST_MOMENT, SECOND_MOMENT):
                part = self._padded(parameter, saved.read(kind, name, elements, first, end))
                safe_set_local_optimizer_state(parameter, part, kind)
        self._engine.optimizer.checkpoint_event_epilogue()

    def _adam(self) -> torch.optim.Optimizer:
        """torch's optimizer inside ZeRO's; its state is keyed by ZeRO's flat partitions."""
        adam: torch.optim.Optimizer = self._engine.optimizer.optimizer
        return adam

    def _make_moments(self, steps: int) -> None:
        for flat in self._engine.optimizer.fp32_partitioned_groups_flat:
            self._adam().state[flat] = {
                "step": torch.tensor(float(steps), dtype=torch.float32, device=flat.device),
                FIRST_MOMENT: torch.zeros_like(flat),
                SECOND_MOMENT: torch.zeros_like(flat),
            }

    def _part(self, kind: str, name: str) -> Tensor:
        parameter = self._parameters[name]
        if kind == MASTER:
            part = safe_get_local_fp32_param(parameter)
        else:
            part = safe_get_local_optimizer_state(parameter, kind)
        first, end = part_bounds(parameter.ds_numel, self.ranks.rank, self.ranks.size)
        return torch.empty(end - first).copy_(part[: end - first])

    def _judged_norms(self) -> Any:
        """ZeRO's gradient norms by group; the mark of an invalid norm where the caller refuses the gradient."""
        norms = self._norms_of_groups()
        norms_G = torch.stack([torch.as_tensor(norm) for norm in norms])
        global_norm = torch.linalg.vector_norm(norms_G)
        self._norm = float(torch.where((norms_G < 0).any(), torch.nan, global_norm))  # one wait for the device
        return norms if self._accepts(self._norm) else [torch.full_like(torch.as_tensor(norm), -1.0) for norm in norms]

    def _set_weight_part(self, parameter: Any, part: Tensor) -> None:
        padded = self._padded(parameter, part)
        parameter.ds_tensor.data.copy_(padded)
        safe_set_local_fp32_param(parameter, padded)

    def _padded(self, parameter: Any, part: Tensor) -> Tensor:
        """A part as ZeRO keeps it: of equal length on all ranks."""
        padded = torch.zeros(parameter.ds_tensor.numel(), dtype=torch.float32, device=self.ranks.device)
        padded[: part.numel()] = part.to(self.ranks.device)
        return padded


def _optimizer(model: Decoder, cfg: Optimizer) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices, not on norms and not on the embedding (as OLMo 2)."""
    named: dict[str, Any] = dict(model.named_parameters())  # `ds_shape`: ZeRO-3 leaves an empty shape
    matrices = {name for name, parameter in named.items() if len(parameter.ds_shape) == 2} - {EMBEDDING}
    decayed = [parameter for name, parameter in named.items() if name in matrices]
    plain = [parameter for name, parameter in named.items() if name not in matrices]
    groups = [{"params": decayed, "weight_decay": cfg.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=cfg.betas, eps=cfg.eps, fused=True)
