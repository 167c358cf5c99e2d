"""The model under DeepSpeed ZeRO-3; the only module that imports deepspeed.

Contract: `train_step` makes one optimizer step on this rank's rows of a global batch, at the learning
rate it is given; nothing here knows of phases, plans or files' names. Every method is collective.
Weights are float32 masters with a copy in the engine's precision; a step whose gradient norm is not
finite is skipped by all ranks alike (DeepSpeed judges the norm after its reduction).

Cost of `full_weights`: one parameter in float32 at a time on each rank, one all-gather each.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepspeed
import deepspeed.ops
import torch
from deepspeed.utils import safe_get_full_fp32_param, safe_set_local_fp32_param
from torch import Tensor

from configs.errors import user_error
from configs.schema import Optimizer, Recipe
from pretrain.ds_config import deepspeed_config
from pretrain.model import EMBEDDING, Decoder
from pretrain.ranks import Ranks

_TAG = "state"


@dataclass(frozen=True)
class StepResult:
    """One step as this rank saw it; means over its own tokens, the norm over all ranks."""

    loss: float
    """Mean cross-entropy, nats a token."""
    z_loss: float
    """Mean log²(Z), before its weight."""
    gradient_norm: float
    """Global norm before clipping; not finite when the step was skipped."""
    applied: bool


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
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_ranks))
        where = torch.device("cpu")
    return Ranks(deepspeed.comm.get_rank(), deepspeed.comm.get_world_size(), where)


class Engine:
    """Model, optimizer and gradient accumulation."""

    def __init__(self, recipe: Recipe, ranks: Ranks) -> None:
        self.ranks = ranks
        self._micro_batch = recipe.engine.micro_batch_sequences
        config = deepspeed_config(recipe, ranks.size, ranks.device.type)
        with deepspeed.zero.Init(config_dict_or_path=config):
            model = Decoder(recipe.model, recipe.tokenizer.vocab_size, recipe.engine.activation_checkpointing)
        optimizer = _optimizer(model, recipe.optimizer)
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        self._parameters = dict(self._engine.module.named_parameters())

    def set_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Set every parameter from (name, value); each rank keeps its own part of each value."""
        missing = set(self._parameters)
        self._engine.optimizer.checkpoint_event_prologue()
        for name, value in weights:
            self._set_part(self._parameters[name], value)
            missing.remove(name)
        self._engine.optimizer.checkpoint_event_epilogue()
        assert not missing, f"no weights for {sorted(missing)}"

    def train_step(self, batch_BU: Tensor, learning_rate: float, z_weight: float) -> StepResult:
        """One optimizer step on this rank's B sequences of U = T + 1 tokens, int64."""
        micro_batches = torch.split(batch_BU.to(self.ranks.device), self._micro_batch)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.train()
        means = torch.zeros(2, dtype=torch.float64, device=self.ranks.device)
        for number, micro_BU in enumerate(micro_batches, start=1):
            self._engine.set_gradient_accumulation_boundary(number == len(micro_batches))
            nll_BT, log_z_BT = self._engine(micro_BU[:, :-1], micro_BU[:, 1:])
            loss, z_loss = nll_BT.mean(), log_z_BT.square().mean()
            objective = loss + z_weight * z_loss if z_weight else loss
            self._engine.backward(objective / len(micro_batches), scale_wrt_gas=False)
            means += torch.stack((loss.detach(), z_loss.detach())) / len(micro_batches)
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        assert norm is not None
        loss_mean, z_mean = means.tolist()
        return StepResult(loss_mean, z_mean, float(norm), self._engine.was_step_applied())

    @torch.no_grad()
    def token_losses(self, batch_BU: Tensor) -> Tensor:
        """-log p of each next token, float32 BT, of this rank's sequences; no gradient."""
        self._engine.eval()
        batch_BU = batch_BU.to(self.ranks.device)
        nll_BT: Tensor = self._engine(batch_BU[:, :-1], batch_BU[:, 1:])[0]
        return nll_BT

    def full_weights(self) -> Iterator[tuple[str, Tensor]]:
        """(name, float32 master weight) of every parameter, gathered one at a time."""
        for name, parameter in self._parameters.items():
            yield name, safe_get_full_fp32_param(parameter).detach()

    def save(self, folder: Path) -> None:
        """Write all training state into `folder`, each rank its own files."""
        try:
            self._engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)
        except RuntimeError as error:
            # torch.save reports a short write of any kind as a failure of its stream writer.
            if "PytorchStreamWriter" not in str(error):
                raise
            raise user_error(
                str(folder), None, "cannot be written in full (disk full or quota used up)",
                "free some space or set run_dir to a larger disk, then run again",
            ) from error  # fmt: skip

    def load(self, folder: Path) -> None:
        """Read back what `save` wrote with the same number of ranks."""
        path, _ = self._engine.load_checkpoint(str(folder), tag=_TAG)
        assert path is not None, folder

    def _set_part(self, parameter: Any, value: Tensor) -> None:
        size = parameter.ds_tensor.numel()
        part = value.reshape(-1)[self.ranks.rank * size : (self.ranks.rank + 1) * size].to(self.ranks.device)
        padded = torch.zeros(size, dtype=torch.float32, device=self.ranks.device)
        padded[: part.numel()] = part
        parameter.ds_tensor.data.copy_(padded)
        safe_set_local_fp32_param(parameter, padded)


def _optimizer(model: Decoder, cfg: Optimizer) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices, not on norms and not on the embedding (as OLMo 2)."""
    named: dict[str, Any] = dict(model.named_parameters())  # `ds_shape`: ZeRO-3 leaves an empty shape
    matrices = {name for name, parameter in named.items() if len(parameter.ds_shape) == 2} - {EMBEDDING}
    decayed = [parameter for name, parameter in named.items() if name in matrices]
    plain = [parameter for name, parameter in named.items() if name not in matrices]
    groups = [{"params": decayed, "weight_decay": cfg.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=cfg.betas, eps=cfg.eps, fused=True)
