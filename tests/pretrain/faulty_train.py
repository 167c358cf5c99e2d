"""The trainer with a fault: `FAULT=nan:6,7` makes rank 1's gradient NaN in steps 6 and 7 (from 1)."""

from __future__ import annotations

import os
import sys

from torch import Tensor

from pretrain import engine, train

STEPS = {int(step) for step in os.environ["FAULT"].removeprefix("nan:").split(",")}
accumulate = engine.Engine.accumulate
made = 0


def broken(self: engine.Engine, batch_BU: Tensor, *arguments: object) -> tuple[float, float]:
    global made
    made += 1
    found = accumulate(self, batch_BU, *arguments)  # type: ignore[arg-type]
    if made in STEPS and self.ranks.rank == self.ranks.size - 1:
        for gradients in self._engine.optimizer.averaged_gradients.values():
            gradients[0].fill_(float("nan"))
    return found


if __name__ == "__main__":
    engine.Engine.accumulate = broken  # type: ignore[method-assign]
    code = train.main()
    sys.stdout.flush()
    os._exit(code)
