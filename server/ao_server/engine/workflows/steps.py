"""The steps of a workflow as they are stored, and what makes a step right or wrong by itself."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from ao_server.engine import retries

MAX_PARALLEL: Final = 10_000
_ID: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
# What a step of each kind must say, and what it must not.
_NEEDED: Final[dict[str, tuple[str, ...]]] = {"task": ("agent_type",), "approval": (), "workflow": ("workflow_id",)}
_REFUSED: Final[dict[str, tuple[str, ...]]] = {
    "task": ("workflow_id",),
    "approval": ("agent_type", "type", "for_each", "max_parallel", "retry", "compensate", "workflow_id"),
    "workflow": ("agent_type", "type", "retry", "compensate"),
}
_ON_FAILURE: Final = ("fail", "continue", "compensate")


class Compensation(msgspec.Struct, frozen=True, omit_defaults=True):
    """The task that undoes a step. Without `agent_type` the step's own does it. `input` is JMESPath."""

    agent_type: str | None = None
    type: str | None = None
    input: str | None = None


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step as users wrote it. `input`, `condition` and `for_each` are JMESPath; `timeout` is in microseconds.

    `kind`: task, approval or workflow. `depends_on`: None when not given, which is not the same as empty.
    """

    id: str
    name: str
    kind: str = "task"
    agent_type: str | None = None
    type: str | None = None
    order: int | None = None
    depends_on: list[str] | None = None
    input: str | None = None
    condition: str | None = None
    for_each: str | None = None
    max_parallel: int | None = None
    retry: retries.Policy | None = None
    timeout: int | None = None
    on_failure: str = "fail"
    compensate: Compensation | None = None
    workflow_id: str | None = None


_steps_decoder: Final = msgspec.json.Decoder(list[Step])


def encode(steps: Sequence[Step]) -> str:
    """As a version of a workflow keeps them."""
    return msgspec.json.encode(steps).decode()


def decode(text: str) -> list[Step]:
    """What `encode` wrote."""
    return _steps_decoder.decode(text)


def misfits(step: Step) -> Iterator[tuple[str, str]]:
    """What is wrong with a step whatever stands beside it: the field and what is wrong with it."""
    if _ID.fullmatch(step.id) is None:
        yield "id", "an id is 1 to 64 letters, digits, `_` and `-`, and begins with a letter or `_`"
    if step.kind not in _NEEDED:
        yield "kind", f"must be one of {', '.join(_NEEDED)}"
    for field in _NEEDED.get(step.kind, ()):
        if not getattr(step, field):
            yield field, f"{_a(step.kind)} step needs it"
    for field in _REFUSED.get(step.kind, ()):
        if getattr(step, field) is not None:
            yield field, f"{_a(step.kind)} step does not take it"
    if step.max_parallel is not None and step.kind != "approval":
        if step.for_each is None:
            yield "max_parallel", "has a meaning only with for_each"
        if not 1 <= step.max_parallel <= MAX_PARALLEL:
            yield "max_parallel", f"must be 1 to {MAX_PARALLEL:,}"
    if step.on_failure not in _ON_FAILURE:
        yield "on_failure", f"must be one of {', '.join(_ON_FAILURE)}"


def _a(kind: str) -> str:
    return f"an {kind}" if kind == "approval" else f"a {kind}"
