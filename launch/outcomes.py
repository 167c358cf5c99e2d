"""How a training can end that is neither done nor a mistake of the user; the command line gives each its exit code."""


class TrainingFailed(Exception):
    """The trainer ended with an error of its own; the message holds the end of its log."""


class Interrupted(Exception):
    """Training stopped on a signal, saved, and continues when it is run again."""
