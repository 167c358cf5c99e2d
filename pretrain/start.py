"""What a launcher starts on every rank, `deepspeed --module pretrain.start`: pretrain.train, reachable by signals.

Contract: a signal finds a handler from the first moment on, since torch and DeepSpeed take seconds to import. Ends
without the interpreter's teardown, which waits for the process group's threads, or aborts on them, where a peer is
gone.
"""

from __future__ import annotations

import os
import sys

from pretrain.hooks.stop_signals import StopSignals


def main() -> int:
    """Train; return the exit code."""
    stop = StopSignals()
    from pretrain import train

    return train.main(stop=stop)


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
