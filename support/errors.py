"""Errors that a user can do something about, with the exit status that a script sees."""

from __future__ import annotations


class WgtuneError(Exception):
    """Something the user can mend: says what was wrong and where, and in ``hint`` what to do or type next.

    The command line prints both without a traceback and exits with ``exit_code``.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(WgtuneError):
    """The command's words do not fit together, or name something that is not there."""

    exit_code = 2


class DeviceError(WgtuneError):
    """No usable GPU adapter, or one that stopped working."""

    exit_code = 3


class DatabaseError(WgtuneError):
    """The database cannot be opened, read or written."""

    exit_code = 4


class CaptureError(WgtuneError):
    """A model cannot be found, loaded or turned into kernels."""

    exit_code = 5


class BundleError(WgtuneError):
    """A bundle cannot be built, or a folder is not a whole bundle."""

    exit_code = 6


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message that is not blank, or the name of its type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
