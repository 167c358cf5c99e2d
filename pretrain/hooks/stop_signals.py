"""How a training is asked to stop: a signal to any rank, a file named `stop`, or the end of its supervisor.

Contract: before `begin` there is nothing to save, so a request ends the process at once with EXIT_CODE_STOPPED, even
while it waits in C for ranks that never come. Afterwards `asked` turns true, and training saves and ends. Imports no
torch, so that the handlers stand before anything slow is imported.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from pretrain import layout
from twofold import lease
from twofold.exit_codes import EXIT_CODE_STOPPED

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
_POLL_S = 1.0


class StopSignals:
    """Installs the handlers; `watch` adds what only the first rank looks at."""

    def __init__(self) -> None:
        self._signaled, self._began = False, False
        self._out: Path | None = None
        self._ending: Callable[[], object] = lambda: None
        self._supervised, self._looked = False, 0.0
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores hang-ups
                signal.signal(number, self._remember)
        # A handler of Python's waits while the main thread is in C; the byte that the system writes does not.
        self._here, there = socket.socketpair()
        there.setblocking(False)
        self._there = there
        signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._end_while_starting, daemon=True).start()

    def watch(self, out: Path, ending: Callable[[], object] = lambda: None) -> None:
        """On the first rank: also stop for the file, and when a supervisor that is there now is gone.

        `ending` is called before the process ends while it starts; what hangs in it is not waited for.
        """
        self._ending = ending
        self._supervised = lease.is_held(out / layout.SUPERVISOR_LEASE)
        self._out = out

    def begin(self) -> None:
        """From now on there is something to save."""
        self._began = True

    @property
    def asked(self) -> bool:
        return self._signaled or self._file_is_there() or self._is_abandoned()

    def heard(self) -> None:
        """Remove the file: training has saved its state and ends."""
        if self._out is not None:
            (self._out / layout.STOP_FILE).unlink(missing_ok=True)

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self._signaled = True

    def _file_is_there(self) -> bool:
        return self._out is not None and (self._out / layout.STOP_FILE).exists()

    def _is_abandoned(self) -> bool:
        if self._out is None or not self._supervised or time.monotonic() - self._looked < _POLL_S:
            return False
        self._looked = time.monotonic()
        if not lease.is_held(self._out / layout.SUPERVISOR_LEASE):
            print("the supervisor of this training is gone: saving and ending", flush=True)
            self._signaled = True
        return self._signaled

    def _end_while_starting(self) -> None:
        self._here.settimeout(_POLL_S)
        while not self._began:
            try:
                arrived = self._here.recv(1)[0] in SIGNALS
            except TimeoutError:
                arrived = False
            if not self._began and (arrived or self.asked):
                noting = threading.Thread(target=self._ending, daemon=True)
                noting.start()
                noting.join(_POLL_S)
                os._exit(EXIT_CODE_STOPPED)
