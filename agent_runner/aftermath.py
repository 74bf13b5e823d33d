"""What agent code may have left behind for the whole process, put right when it has ended."""

import os
from typing import Final

_STANDARD_FILES: Final = (0, 1, 2)


def leave_if_forked(pid: int) -> None:
    """Ends a process that agent code forked off process `pid` and let run on: all here is the parent's to say."""
    if os.getpid() != pid:
        os._exit(0)


def reopen_standard_files() -> None:
    """Opens those that were closed: or else a socket would take their number, and hear whatever is printed."""
    for number in _STANDARD_FILES:
        try:
            # Unlike `os.fstat` it does not let go of the interpreter's lock, which costs more than the call.
            os.get_inheritable(number)
        except OSError:
            _open_nothing(number)


def _open_nothing(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened == number:
        os.set_inheritable(opened, True)
    else:
        os.dup2(opened, number, inheritable=True)
        os.close(opened)
