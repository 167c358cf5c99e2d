"""One rank of real DeepSpeed: checks `deepspeed_adapter` against it, whole and with each assumption broken.

Prints JSON: what an intact DeepSpeed gives, and the error that each broken assumption ends with.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import world

from pretrain.engine import deepspeed_adapter
from pretrain.engine.deepspeed_adapter import check_assumptions, start_ranks
from pretrain.engine.zero3 import Engine
from twofold.errors import UserError


class Without:
    """`value` without the attributes `names`, and with `others` instead of its own."""

    def __init__(self, value: Any, *names: str, **others: Any) -> None:
        self._value, self._names, self._others = value, names, others

    def __getattr__(self, name: str) -> Any:
        if name in self._names:
            raise AttributeError(name)
        return self._others[name] if name in self._others else getattr(self._value, name)


def error_of(action: Callable[[], object]) -> str | None:
    try:
        action()
    except (UserError, RuntimeError) as error:  # at the start, or meanwhile
        return str(error)
    return None


def broken_engines(engine: Any) -> dict[str, Any]:
    """Engines that miss an attribute, or whose attribute means something else."""
    zero, parameters = engine.optimizer, list(engine.module.parameters())
    found = {f"no {name}": Without(engine, name) for name in deepspeed_adapter._ENGINE if name != "optimizer"}
    missing = {f"no {name}": Without(zero, name) for name in deepspeed_adapter._ZERO}
    other = {
        "_get_norm_groups": 1.0,
        "averaged_gradients": [],
        "fp16_groups": zero.fp16_groups[:1],
        "fp32_partitioned_groups_flat": [flat.double() for flat in zero.fp32_partitioned_groups_flat],
        "grad_partitions_flat_buffer": zero.grad_partitions_flat_buffer[:-1],
        "lp_param_buffer": zero.lp_param_buffer.double(),
        "ipg_buckets": {torch.float32: SimpleNamespace()},
        "optimizer": zero,
        "param_groups": [{}],
    }
    changed = {name: Without(zero, **{name: value}) for name, value in other.items()}
    found |= {name: Without(engine, optimizer=value) for name, value in (missing | changed).items()}
    for name, value in {"ds_numel": 3, "ds_persist": None, "ds_tensor": parameters[0].ds_tensor[:-1]}.items():
        gone = SimpleNamespace(parameters=lambda name=name: [Without(parameters[0], name)])
        wrong = SimpleNamespace(parameters=lambda new={name: value}: [Without(parameters[0], **new)])
        found |= {f"no {name}": Without(engine, module=gone), name: Without(engine, module=wrong)}
    return found


def main() -> None:
    ranks = start_ranks("cpu")
    engine = Engine(world.recipe(), ranks)
    engine.set_initial_weights()
    zero = engine.zero._zero
    errors = {
        name: error_of(lambda b=b: check_assumptions(b, 1)) for name, b in broken_engines(zero_engine(engine)).items()
    }
    rows = torch.randint(12, world.VOCAB, (4, 33), generator=torch.Generator().manual_seed(1))

    engine.accumulate(rows, 0.0)
    norm, before = engine.grad_norm(), weight(engine)
    engine.skip_step()
    skipped = torch.equal(before, weight(engine)), engine.optimizer_steps
    engine.accumulate(rows, 0.0)
    norm_again = engine.grad_norm()
    engine.step(1e-3)
    updated = not torch.equal(before, weight(engine)), engine.optimizer_steps

    engine.accumulate(rows, 0.0)
    engine.zero._compute_norms = lambda: [torch.tensor(1.0)] * 5
    errors["norms"] = error_of(engine.grad_norm)
    zero.averaged_gradients = {}
    errors["gradients"] = error_of(engine.grad_norm)
    engine.zero._engine.step = lambda: None
    engine.zero._norms = [torch.tensor(1.0)]
    errors["step"] = error_of(lambda: engine.step(1e-3))
    whole = {"norms": [norm, norm_again], "skipped": skipped, "updated": updated}
    print(json.dumps({"intact": whole, "errors": errors}))


def zero_engine(engine: Engine) -> Any:
    return engine.zero._engine


def weight(engine: Engine) -> torch.Tensor:
    return dict(engine.full_weights())["lm_head.weight"].clone()


if __name__ == "__main__":
    main()
