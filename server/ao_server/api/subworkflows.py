"""What stands below a workflow: the workflows that its steps execute, theirs, and so on."""

from collections.abc import Collection
from itertools import islice
from typing import Final

from ao_server.engine.workflows import definition
from ao_server.engine.workflows.definition import Step
from ao_server.store import workflows
from ao_server.store.reader import Reader

# Workflows that are looked at, and how many are in memory at once.
MOST_LOOKED_AT: Final = 100
READ_AT_ONCE: Final = 10


def named(steps: Collection[Step]) -> set[str]:
    """The workflows that the steps execute."""
    return {step.workflow_id for step in steps if step.workflow_id is not None}


async def agent_types(reader: Reader, project_id: str, workflow_ids: Collection[str]) -> set[str]:
    """The types of agents that these workflows, in their newest versions, and those below them have tasks for: of the
    first hundred of them.
    """
    found: set[str] = set()
    seen, left = set[str](), set(workflow_ids)
    while left and len(seen) < MOST_LOOKED_AT:
        some = set(islice(sorted(left), READ_AT_ONCE))
        seen |= some
        for text in await workflows.active_steps(reader, project_id, some):
            steps = definition.decode(text)
            found |= {step.agent_type for step in steps if step.agent_type is not None}
            left |= named(steps)
        left -= seen
    return found
