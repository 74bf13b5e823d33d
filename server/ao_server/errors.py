"""What can be wrong with a request, in the words that users see. The api layer maps each to a gRPC status."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Bad fields that stand in a message; all are in its details.
SHOWN_FIELDS: Final = 3


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One bad field: its path as the client wrote it (`schedule.type`, `tasks[3].type`) and what is wrong with it."""

    field: str
    message: str


class Problem(Exception):
    """A refusal with a stable code word and a message that is safe to show."""

    code: str = "internal_error"

    def __init__(
        self, message: str, *, details: Sequence[FieldProblem] = (), retry_after: float | None = None, code: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)
        self.retry_after = retry_after
        self.code = code or type(self).code


class Invalid(Problem):
    """The request itself is wrong."""

    code = "validation_error"

    @classmethod
    def field(cls, field: str, message: str) -> "Invalid":
        """One bad field."""
        return cls.fields([FieldProblem(field, message)])

    @classmethod
    def fields(cls, problems: Sequence[FieldProblem]) -> "Invalid":
        """Bad fields, at least one."""
        shown = "; ".join(f"{each.field}: {each.message}" for each in problems[:SHOWN_FIELDS])
        return cls(shown, details=problems)


class Unauthorized(Problem):
    """No credential, or one that is unknown or ended."""

    code = "unauthorized"


class Forbidden(Problem):
    """The credential is good, but not for this."""

    code = "forbidden"


class NotFound(Problem):
    """The object in the path does not exist."""

    code = "not_found"


class Conflict(Problem):
    """The state of the object forbids it, or an idempotency key was used for something else."""

    code = "conflict"


class CursorRejected(Problem):
    """An event cursor that cannot be resumed from: `cursor_invalid`, `cursor_expired` or `cursor_ahead`."""

    code = "cursor_invalid"


class Superseded(Problem):
    """A newer stream, or the end of the lease, has taken the place of this one."""

    code = "superseded"


class RateLimited(Problem):
    """The credential has made as many calls as it may. `retry_after` is in seconds."""

    code = "rate_limited"


class Unavailable(Problem):
    """Not now: the store is away or the queue is full. `retry_after` is in seconds."""

    code = "unavailable"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message, retry_after=retry_after)


class DeadlineExceeded(Problem):
    """The caller's deadline passed first; whether a write happened is unknown."""

    code = "request_timeout"


class CannotStart(Exception):
    """A reason not to start that only the operator can remove; its text is the one line that is printed."""


class InUse(CannotStart):
    """A running server holds what is needed."""
