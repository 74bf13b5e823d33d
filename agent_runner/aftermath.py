"""What agent code may have left behind for the whole process, put right when it has ended."""

import os
from typing import Final

_STANDARD_FILES: Final = (0, 1, 2)

# How many forks lead from the first process to this one: unlike its id, no system call for each question.
_generation = 0


def _count_fork() -> None:
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_count_fork)


def generation() -> int:
    """The same for as long as this is the same process."""
    return _generation


def leave_if_forked(since: int) -> None:
    """Ends a process that agent code has forked off `since` that generation and let run on: all here is the parent's
    to say.
    """
    if _generation != since:
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
