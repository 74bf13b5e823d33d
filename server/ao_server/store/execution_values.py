"""Reads of the values of an execution, wherever they stand: their sizes first, as the texts can be large."""

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from itertools import groupby
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, LargeBinary, cast, func, literal, select

from ao_server.store import tables, workflow_tables
from ao_server.store.reader import Reader

_PAYLOAD: Any = tables.Payload
_RESULT: Any = tables.Result
_VALUE: Any = workflow_tables.ExecutionValue
# No names of values of executions.
_OF_TASK_PAYLOAD: Final = "payload of a task"
_OF_TASK_RESULT: Final = "result of a task"

# What is wanted of a column of texts.
_Of = Callable[[Any], Any]


class Source(NamedTuple):
    """Where the text of a value stands: the payload or the result of a task (`owner_id`), or what an execution has
    under another name in a place.
    """

    name: str
    owner_id: str
    place: int = 0


def payload(task_id: str) -> Source:
    """The payload of a task."""
    return Source(_OF_TASK_PAYLOAD, task_id)


def result(task_id: str) -> Source:
    """The result of a task."""
    return Source(_OF_TASK_RESULT, task_id)


def value(execution_id: str, name: str, place: int = 0) -> Source:
    """A value of an execution."""
    return Source(name, execution_id, place)


async def sizes(reader: Reader, project_id: str, sources: Collection[Source]) -> dict[Source, int]:
    """The bytes of those that exist."""

    def length(text: Any) -> Any:
        return func.length(cast(text, LargeBinary)) if reader.database.is_sqlite else func.octet_length(text)

    return {source: size async for source, size in _read(reader, project_id, sources, length)}


async def texts(reader: Reader, project_id: str, sources: Collection[Source]) -> dict[Source, str]:
    """The texts of those that exist."""
    return {source: text async for source, text in _read(reader, project_id, sources, _itself)}


async def _read(
    reader: Reader, project_id: str, sources: Collection[Source], of: _Of
) -> AsyncIterator[tuple[Source, Any]]:
    if not sources:
        return
    async with reader.connect() as connection:
        for name, some in groupby(sorted(set(sources)), key=lambda source: source.name):
            answered: Any = await connection.execute(_statement(project_id, name, list(some), of))
            for owner_id, place, found in answered:
                yield Source(name, owner_id, place), found


def _itself(text: Any) -> Any:
    return text


def _statement(project_id: str, name: str, sources: Iterable[Source], of: _Of) -> Any:
    owners = {source.owner_id for source in sources}
    if name == _OF_TASK_PAYLOAD:
        return _of_tasks(_PAYLOAD, of(_PAYLOAD.payload), project_id, owners)
    if name == _OF_TASK_RESULT:
        return _of_tasks(_RESULT, of(_RESULT.result), project_id, owners)
    # Either the owners or the places are but one.
    where: list[ColumnElement[bool]] = [
        _VALUE.project_id == project_id,
        _VALUE.execution_id.in_(owners),
        _VALUE.name == name,
        _VALUE.place.in_({source.place for source in sources}),
    ]
    return select(_VALUE.execution_id, _VALUE.place, of(_VALUE.value)).where(*where)


def _of_tasks(table: Any, found: Any, project_id: str, task_ids: Collection[str]) -> Any:
    return select(table.task_id, literal(0), found).where(table.project_id == project_id, table.task_id.in_(task_ids))
