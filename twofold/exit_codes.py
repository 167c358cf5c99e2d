"""Exit codes of the command line and of the trainer; they tell a supervisor whether to restart."""

EXIT_CODE_FAILED = 1
"""The trainer failed by itself; a restart may help."""
EXIT_CODE_USER_ERROR = 2
"""The user must change something first: a restart fails again."""
EXIT_CODE_STOPPED = 75
"""Stopped on a signal with its state saved; run again to resume (sysexits.h: EX_TEMPFAIL)."""
EXIT_CODE_STALLED = 76
"""Ended by the watchdog: no progress, a rank or a link is lost; restart from the newest checkpoint."""
EXIT_CODE_KEYBOARD = 130
"""Ctrl-C outside of training (128 + SIGINT)."""
