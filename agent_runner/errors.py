"""What a task function may raise to say more than that it failed, and what it sees when it should stop."""

import asyncio
from typing import Any, ClassVar, Final

TASK_ERROR: Final = "task_error"
MAX_CODE_LENGTH: Final = 100


class TaskError(Exception):
    """Fails the attempt with this message; the task's retry policy decides what follows.

    `code`, at most 100 characters, is a stable word by which programs tell failures apart; a subclass may set it as an
    attribute. Any other exception fails the attempt too, with the code `task_error`.
    """

    code: str = TASK_ERROR
    not_retryable: ClassVar[bool] = False

    def __init__(self, *arguments: object, code: str | None = None) -> None:
        super().__init__(*arguments)
        if code is not None:
            self.code = checked_code(code)


class NotRetryable(TaskError):
    """Fails the task for good: trying again would not help, whatever its retry policy says.

    `raise NotRetryable("...") from error` keeps the cause in the task's log.
    """

    not_retryable: ClassVar[bool] = True


class TaskCancelled(asyncio.CancelledError):
    """Raised in a function whose attempt should stop: once, at its next await, progress or log call.

    A plain function sees it in each of its threads that reports. It need not be caught.
    """


def checked_code(code: Any) -> str:
    """The code. TypeError or ValueError when it is not a word that can be kept."""
    if not isinstance(code, str):
        raise TypeError(f"code must be text, not {code!r}")
    if not code.isascii() or not code.isprintable() or " " in code or not 0 < len(code) <= MAX_CODE_LENGTH:
        raise ValueError(f"code must have 1 to {MAX_CODE_LENGTH} printable ASCII characters without spaces")
    return code
