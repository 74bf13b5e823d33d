"""Rows as last committed, so that a task that is created, claimed and settled within moments is not read back."""

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from ao_server.store import rows

LIMIT: Final = 10_000
# Tables whose rows change, and are written by nobody but the one writer.
_KEPT: Final = (rows.Agent, rows.Task, rows.Feed)


class Recent:
    """The last rows that were written, of each table at most `limit`."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._rows: dict[type[Any], dict[Any, Any]] = {row: {} for row in _KEPT}

    def get(self, row: type[Any], key: Any) -> Any:
        """The row, None when it is not known here."""
        kept = self._rows.get(row)
        return None if kept is None else kept.get(key)

    def keep(self, row: type[Any], written: Mapping[Any, Any]) -> None:
        """Takes in what was committed, by key; what came in first makes room."""
        kept = self._rows.get(row)
        if kept is None:
            return
        kept.update(written)
        for key in list(islice(kept, max(0, len(kept) - self._limit))):
            del kept[key]

    def clear(self) -> None:
        """Forgets everything: what the store holds is not certain any more."""
        for kept in self._rows.values():
            kept.clear()
