"""How training can end besides success and user errors; the command line maps each to an exit code."""


class TrainingFailed(Exception):
    """The trainer failed; the message holds the end of its log."""


class Interrupted(Exception):
    """Training stopped on a signal and saved; running it again resumes it."""
