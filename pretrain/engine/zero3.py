"""The model, its optimizer and gradient accumulation under ZeRO-3.

Contract: `accumulate` runs the micro-batches of this rank's rows of a global batch, `grad_norm` returns the norm of
the gradients that they add up to, and `step` or `skip_step` ends the step. Phases, plans and files are not known here.
Every method is collective. Master weights are float32, with a copy in the engine's precision.

Training state is read (`parts`) and set (`restore`) as float32 parts of parameters. DeepSpeed's own checkpoints are
pickles, hold for one number of ranks until converted, give every parameter group the first one's hyperparameters
when converted, and cannot be loaded by an engine that saved before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor

from configs.schema import Recipe
from pretrain.checkpoints.training_state import KINDS, MASTER, SavedTensors
from pretrain.engine.deepspeed_adapter import ZeroModel, partitioned_init
from pretrain.engine.distributed import Ranks
from pretrain.engine.ds_config import deepspeed_config
from pretrain.model.attention import document_bounds, fastest_first
from pretrain.model.backends import Kernels, choose, install
from pretrain.model.decoder import EMBEDDING, Block, Decoder, initial_weights, parameter_shapes


class Engine:
    """Model, optimizer and gradient accumulation."""

    def __init__(self, recipe: Recipe, ranks: Ranks, kernels: Kernels | None = None) -> None:
        """`kernels` replaces what the recipe and the device decide, for tests and benchmarks."""
        self.ranks = ranks
        self.kernels = kernels or choose(recipe, ranks.device)
        self._recipe = recipe
        torch.use_deterministic_algorithms(recipe.engine.deterministic)
        config = deepspeed_config(recipe, ranks.size, ranks.device.type)
        with partitioned_init(config):
            model = Decoder(recipe.model, recipe.tokenizer.vocab_size, linear=self.kernels.linear)
        install(model, self.kernels)
        # ZeRO-3 gathers a compiled block as a whole: its hooks stand around the graph, none inside.
        leaf_modules = [Block] if self.kernels.compiler is not None else []
        self.zero = ZeroModel(model, _optimizer(model, recipe), config, ranks, leaf_modules)

    def set_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Set every parameter from (name, value); each rank keeps its own part of each value."""
        missing = set(self.zero.parameters)
        with self.zero.replacing_parts():
            for name, value in weights:
                first, end = self.zero.bounds(name)
                self.zero.set_part(MASTER, name, value.reshape(-1)[first:end])
                missing.remove(name)
        assert not missing, f"no weights for {sorted(missing)}"

    def set_initial_weights(self) -> None:
        """Set the random weights that the recipe's seed decides."""
        recipe = self._recipe
        self.set_weights(initial_weights(recipe.model, recipe.tokenizer.vocab_size, recipe.seed))

    def accumulate(
        self, batch_BU: Tensor, z_weight: float, intra_document_masking: bool = False
    ) -> tuple[float, float]:
        """Add up the gradients of this rank's B sequences of U = T + 1 tokens, int64.

        Returns the means over them of the cross-entropy (nats per token) and of log²(Z), before its weight.
        """
        micro_batches = torch.split(batch_BU, self._recipe.engine.micro_batch_size)
        self.zero.train(True)
        means = torch.zeros(2, dtype=torch.float64, device=self.ranks.device)
        with fastest_first(self.ranks.device) if self.kernels.ordered_attention else nullcontext():
            for number, micro_BU in enumerate(micro_batches, start=1):
                self.zero.set_boundary(number == len(micro_batches))
                means += self._accumulate(micro_BU, z_weight, intra_document_masking, len(micro_batches))
        loss_mean, z_mean = means.tolist()  # the only wait for the device
        return loss_mean, z_mean

    def _accumulate(self, micro_BU: Tensor, z_weight: float, intra_document_masking: bool, parts: int) -> Tensor:
        """One forward and backward pass; its part of `accumulate`'s two means, on the device."""
        nll_BT, log_z_BT = self._losses(micro_BU, intra_document_masking)
        loss, z_loss = nll_BT.mean(), log_z_BT.square().mean()
        objective = loss + z_weight * z_loss if z_weight else loss
        self.zero.backward(objective / parts)
        return torch.stack((loss.detach(), z_loss.detach())) / parts

    def _losses(self, batch_BU: Tensor, intra_document_masking: bool) -> tuple[Tensor, Tensor]:
        """(-log p of each next token, log Z), float32 BT each."""
        bounds_S = None
        if intra_document_masking and self.kernels.document_bounds:
            bounds_S = self._to_device(document_bounds(batch_BU[:, :-1]))
        batch_BU = self._to_device(batch_BU)
        nll_BT, log_z_BT = self.zero(batch_BU[:, :-1], batch_BU[:, 1:], intra_document_masking, bounds_S)
        return nll_BT, log_z_BT

    def _to_device(self, values: Tensor) -> Tensor:
        """Copy without waiting for the copy: the host would wait for one from pageable memory."""
        if self.ranks.device.type == "cuda" and values.device.type == "cpu":
            values = values.pin_memory()
        return values.to(self.ranks.device, non_blocking=True)

    def grad_norm(self) -> float:
        """Global norm of the accumulated gradients before clipping; NaN if one of them is not finite."""
        return self.zero.grad_norm()

    def step(self, lr: float) -> None:
        """Update the weights with the accumulated gradients, after `grad_norm`."""
        self.zero.step(lr)

    def skip_step(self) -> None:
        """Drop the accumulated gradients, after `grad_norm`; nothing else changes."""
        self.zero.skip_step()

    @torch.no_grad()
    def token_losses(self, batch_BU: Tensor, intra_document_masking: bool = False) -> Tensor:
        """-log p of each next token, float32 BT, of this rank's sequences; no gradient."""
        self.zero.train(False)
        return self._losses(batch_BU, intra_document_masking)[0]

    @torch.no_grad()
    def next_logits(self, tokens_BT: Tensor) -> Tensor:
        """Logits V, float32 on the host, of the token after the first sequence; all ranks pass the same."""
        self.zero.train(False)
        logits_BTV: Tensor = self.zero(tokens_BT.to(self.ranks.device))
        return logits_BTV[0, -1].float().cpu()

    def full_weights(self) -> Iterator[tuple[str, Tensor]]:
        """(name, float32 master weight) of every parameter, gathered and in memory one at a time."""
        for name in self.zero.parameters:
            yield name, self.zero.full_weight(name)

    @property
    def optimizer_steps(self) -> int:
        """Updates so far, over all restarts."""
        return self.zero.optimizer_steps or 0

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """This rank's parts of the training state, copied to host memory (see training_state.py)."""
        if self.zero.optimizer_steps is None:
            self.zero.make_moments(0)
        return {kind: {name: self.zero.part(kind, name) for name in self.zero.parameters} for kind in KINDS}

    def restore(self, saved: SavedTensors, optimizer_steps: int) -> None:
        """Take weights and moments from a checkpoint of any number of ranks; each rank reads its parts."""
        self.zero.make_moments(optimizer_steps)
        with self.zero.replacing_parts():
            for name in self.zero.parameters:
                for kind in KINDS:
                    part = saved.read(kind, name, self.zero.elements(name), *self.zero.bounds(name))
                    self.zero.set_part(kind, name, part)


def _optimizer(model: Decoder, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices, not on norms and not on the embedding (as OLMo 2)."""
    cfg = recipe.optimizer
    shapes = parameter_shapes(recipe.model, recipe.tokenizer.vocab_size)  # ZeRO-3 leaves the model's own empty
    decays = {name: len(shape) == 2 and name != EMBEDDING for name, shape in shapes.items()}
    decayed = [parameter for name, parameter in model.named_parameters() if decays[name]]
    plain = [parameter for name, parameter in model.named_parameters() if not decays[name]]
    groups = [{"params": decayed, "weight_decay": cfg.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=cfg.betas, eps=cfg.eps, fused=True)
