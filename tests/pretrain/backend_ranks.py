"""A rank of real DeepSpeed ZeRO-3 (gloo) that takes one step by each way of backends.py, for test_backends_zero3.py.

Writes what the tests judge into the folder that it is given: gradients and losses of each way, and what was seen
on the way to them. deepspeed is imported in this process alone.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import world
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from pretrain.engine.distributed import Ranks
from pretrain.model import attention
from pretrain.model.backends import Kernels
from pretrain.model.decoder import initial_weights
from twofold.special_ids import EOS_ID

COMPILED = "aot_eager"
WAYS: dict[str, Kernels] = {
    "eager": Kernels(losses="recomputed", recompute=True),
    "compiled": Kernels(compiler=COMPILED, losses="kept", document_bounds=True),
    "compiled, recomputed": Kernels(compiler=COMPILED, losses="recomputed", document_bounds=True, recompute=True),
    "compiled, selective": Kernels(compiler=COMPILED, losses="kept", recompute="selective"),
    "compiled, float8": Kernels(compiler=COMPILED, losses="kept", float8=True),
}
Z_WEIGHT = 0.01
_WAITS = ("aten._local_scalar_dense.default", "aten.nonzero.default", "aten.equal.default", "aten.is_nonzero.default")


def recipe() -> Any:
    return world.recipe(engine__precision="fp32", engine__persistence_threshold=0, model__n_layers=3)


def batch() -> torch.Tensor:
    """Eight sequences of documents."""
    tokens = torch.randint(12, world.VOCAB, (8, 33), generator=torch.Generator().manual_seed(5))
    tokens[torch.rand(tokens.shape, generator=torch.Generator().manual_seed(6)) < 0.1] = EOS_ID
    return tokens


class _Waits(TorchDispatchMode):
    """Counts operators that make the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, inputs=(), options=None):  # type: ignore[no-untyped-def]
        self.count += str(function) in _WAITS
        return function(*inputs, **(options or {}))


def _dense_varlen(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bounds: torch.Tensor, _: int) -> torch.Tensor:
    """What FlashAttention computes, by a mask over all tokens: there is no such kernel on a CPU."""
    segment = torch.searchsorted(bounds, torch.arange(len(q), dtype=torch.int32), right=True)
    mask = (segment[:, None] == segment[None]).tril()
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)[0].transpose(0, 1)


def _weights_kept(engine: Any) -> Any:
    """A hook that lists saved tensors which hold the storage of a gathered weight and are not the weight itself."""
    kept: list[str] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        for name, parameter in engine.zero.parameters.items():
            gathered = parameter.ds_status.name == "AVAILABLE"
            if gathered and tensor is not parameter and tensor.untyped_storage()._cdata == _storage(parameter):
                kept.append(name)
        return tensor

    return kept, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)


def _storage(parameter: Any) -> int:
    storage: int = parameter.untyped_storage()._cdata
    return storage


def step(ranks: Ranks, kernels: Kernels, out: Path, name: str) -> dict[str, Any]:
    from deepspeed.utils import safe_get_full_grad

    from pretrain.engine.zero3 import Engine

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    chosen = recipe()
    engine = Engine(chosen, ranks, kernels)
    engine.set_weights(initial_weights(chosen.model, world.VOCAB, 3))
    rows = batch().chunk(ranks.size)[ranks.rank]
    kept, hooks = _weights_kept(engine)
    waits = _Waits()
    with hooks:
        losses = engine.accumulate(rows, Z_WEIGHT, intra_document_masking=True)
    gradients = {n: safe_get_full_grad(parameter).clone() for n, parameter in engine.zero.parameters.items()}
    norm = engine.grad_norm()
    engine.step(1e-3)
    graphs = dict(torch._dynamo.utils.counters["stats"]), dict(torch._dynamo.utils.counters["graph_break"])
    status = sorted({parameter.ds_status.name for parameter in engine.zero.parameters.values()})
    # In its first three passes DeepSpeed compares the ranks' order of modules, and waits for that.
    engine.accumulate(rows, Z_WEIGHT)
    with waits if kernels.compiler is None else nullcontext():
        engine.accumulate(rows, Z_WEIGHT)
    validation = engine.token_losses(rows[:3]).mean().item()
    engine.next_logits(rows[:1, :5])
    if ranks.is_first:
        save_file(gradients, out / f"{name}.safetensors")
    return {
        "losses": losses,
        "norm": norm,
        "applied": engine.optimizer_steps == 1,
        "graphs": graphs[0].get("unique_graphs", 0),
        "breaks": graphs[1],
        "status": status,
        "waits": waits.count,
        "kept": kept,
        "validation": validation,
        "graphs_after": torch._dynamo.utils.counters["stats"]["unique_graphs"],
    }


def main(out: Path) -> None:
    from pretrain.engine.deepspeed_adapter import start_ranks

    attention.varlen = _dense_varlen
    ranks = start_ranks("cpu")
    seen = {name: step(ranks, way, out, name) for name, way in WAYS.items()}
    (out / f"rank-{ranks.rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
