"""The exit codes of every command."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the number tells the caller."""

    #: The command did what it was asked to.
    DONE = 0
    #: It could not; the message says why, and repeating it later may work.
    FAILED = 1
    #: Wrong usage, settings or database: somebody must change something first.
    WRONG_USAGE = 2
    #: Ended by Ctrl-C.
    INTERRUPTED = 130
