"""What every execution is carried on with."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ao_server.engine.ids import Ids
from ao_server.engine.workflows.budgets import Budgets
from ao_server.engine.workflows.graphs import Graphs
from ao_server.engine.workflows.lists import Lists
from ao_server.engine.workflows.room import Room
from ao_server.store import rows
from ao_server.store.workflow_selections import WorkflowSelections


@dataclass(frozen=True, slots=True)
class Tools:
    """`stop` tells the process of a task to stop it, after the commit. `room`, `budgets`: of the transaction."""

    graphs: Graphs
    selections: WorkflowSelections
    ids: Ids
    stop: Callable[[rows.Task], None]
    lists: Lists = field(default_factory=Lists)
    room: Room = field(default_factory=Room)
    budgets: Budgets = field(default_factory=Budgets)
