"""The trainer with one fault, told by FAULT.

nan:6,7     the last rank's gradient is NaN in steps 6 and 7 (counted from 1)
die:6       the last rank is killed with SIGKILL while it writes its part of the second checkpoint
fail:6      the last rank meets an error of its own (a user's) in step 6, alone
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from pretrain import train
from pretrain.checkpoints import training_state
from pretrain.engine.zero3 import Engine
from twofold.errors import user_error

kind, _, numbers = os.environ["FAULT"].partition(":")
STEPS = {int(number) for number in numbers.split(",")}
accumulate, write = Engine.accumulate, training_state.write
steps = saves = 0


def broken_accumulate(self: Engine, batch_BU: Tensor, *arguments: Any) -> tuple[float, float]:
    global steps
    steps += 1
    last = self.ranks.rank == self.ranks.size - 1
    if kind == "fail" and steps in STEPS and last:
        raise user_error("shard", "00003.ds", "cannot be read here", "mount the data on this host")
    found = accumulate(self, batch_BU, *arguments)
    if kind == "nan" and steps in STEPS and last:
        for gradients in self.zero.gradients():
            gradients[0].fill_(float("nan"))
    return found


def broken_write(folder: Path, parts: training_state.Parts, rank: int, size: int) -> Path:
    global saves
    saves += 1
    if kind == "die" and saves == 2 and rank == size - 1:
        (folder / training_state.file_name(rank, size)).write_bytes(b"half of it")
        os.kill(os.getpid(), signal.SIGKILL)
    return write(folder, parts, rank, size)


if __name__ == "__main__":
    Engine.accumulate = broken_accumulate  # type: ignore[method-assign]
    training_state.write = broken_write
    code = train.main()
    sys.stdout.flush()
    os._exit(code)
