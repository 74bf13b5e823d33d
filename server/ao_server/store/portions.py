"""Events as the store keeps them: those of one transaction together, in few rows."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from ao_server.store import rows

# Of one portion: who resumes in the middle of it reads all of it.
MAX_EVENTS: Final = 64
MAX_CHARACTERS: Final = 64 * 1024

_decoder: Final = msgspec.json.Decoder(list[rows.Event])


def of(events: Sequence[rows.Event]) -> list[rows.EventPortion]:
    """The portions of one project's events, which have their positions."""
    return [
        rows.EventPortion(
            project_id=some[0].project_id,
            last=some[-1].position,
            timestamp=max([event.timestamp for event in some]),
            events=msgspec.json.encode(some).decode(),
        )
        for some in _cut(events)
    ]


def events_of(portion: rows.EventPortion) -> list[rows.Event]:
    """The events of a portion, in order."""
    return _decoder.decode(portion.events)


def _cut(events: Sequence[rows.Event]) -> Iterator[Sequence[rows.Event]]:
    start = size = 0
    for end, event in enumerate(events):
        size += len(event.body)
        if end > start and (size > MAX_CHARACTERS or end - start == MAX_EVENTS):
            yield events[start:end]
            start, size = end, len(event.body)
    yield events[start:]
