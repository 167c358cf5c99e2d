"""How a training is asked to stop: a signal to any rank, or a file named `stop` in its folder."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType


class StopSignals:
    """Remembers that SIGTERM, SIGINT or SIGUSR1 arrived; the first rank also looks for the file."""

    def __init__(self, file: Path | None = None) -> None:
        self._signaled = False
        self._file = file
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._remember)

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self._signaled = True

    @property
    def asked(self) -> bool:
        return self._signaled or (self._file is not None and self._file.exists())

    def heard(self) -> None:
        """Remove the file: training has saved its state and ends."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)
