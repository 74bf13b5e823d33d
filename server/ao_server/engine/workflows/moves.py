"""What the planner is told, and what it asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ao_server.engine.transitions import Failure
from ao_server.store import rows


@dataclass(frozen=True, slots=True)
class Started:
    """The execution begins. The state has all of its steps."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look at a step's condition and list has found. `items`: None for a step without `for_each`. `is_skipped`:
    its condition does not hold. `failure`: one of the two could not be evaluated.
    """

    place: int
    items: int | None = None
    is_skipped: bool = False
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """What ran for a step, or one item of it, has a result of so many bytes."""

    place: int
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """What ran for a step, or one item of it, has failed, or could not be begun."""

    place: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What ran for a step, or one item of it, was cancelled. Where nobody wanted that of the execution, the step has
    failed with this.
    """

    place: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class UndoBegun:
    """The step is being undone."""

    place: int


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody wants it to stop."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing runs any more, and the state has all steps that have not ended."""


@dataclass(frozen=True, slots=True)
class Retried:
    """It is to go on after it failed or was cancelled, with nothing undone. The state has all of its steps."""


Event = Started | Looked | Completed | Failed | Cancelled | UndoBegun | CancelRequested | Closed | Retried


@dataclass(frozen=True, slots=True)
class Look:
    """Evaluate the step's condition and list. Answered by Looked."""

    place: int


@dataclass(frozen=True, slots=True)
class Run:
    """Begin the step, or its next `count` items, the first of which is the `start`th of those that are left to do.
    Each is answered by Completed, Failed or Cancelled.
    """

    place: int
    start: int = 0
    count: int = 1


@dataclass(frozen=True, slots=True)
class Gather:
    """Make the results of all items the output of the step, in order."""

    place: int


@dataclass(frozen=True, slots=True)
class StopWaiting:
    """Cancel what was not begun by anybody yet: pending tasks, approvals. Each is answered by Cancelled."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Cancel all that waits or runs. Each is answered by Completed, Failed or Cancelled."""


@dataclass(frozen=True, slots=True)
class Undo:
    """Begin to undo a step. Answered by UndoBegun, then as Run is."""

    place: int


@dataclass(frozen=True, slots=True)
class Close:
    """Load the steps that have not ended. Answered by Closed."""


Command = Look | Run | Gather | StopWaiting | Stop | Undo | Close


@dataclass(frozen=True, slots=True)
class State:
    """An execution, and those of its steps that are known here, by place."""

    execution: rows.Execution
    steps: Mapping[int, rows.ExecutionStep]


@dataclass(frozen=True, slots=True)
class Next:
    """What an event leads to: the execution after it, those steps that have changed, and what is to be done."""

    execution: rows.Execution
    steps: Mapping[int, rows.ExecutionStep]
    commands: Sequence[Command]
