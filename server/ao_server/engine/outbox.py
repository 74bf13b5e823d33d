"""What waits to be sent to one process."""

import asyncio
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Outbox(Generic[Item]):
    """A queue with one reader. Thousands of streams are idle: unlike `asyncio.Queue`, which holds four deques of 760
    bytes, an empty one holds next to nothing.
    """

    __slots__ = ("_items", "_reader")

    def __init__(self) -> None:
        self._items: list[Item] = []
        # Waits for something to come.
        self._reader: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item) -> None:
        """Adds it at the end."""
        self._items.append(item)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def filled(self) -> asyncio.Future[None]:
        """Done once there is something to take."""
        self._reader = asyncio.get_running_loop().create_future()
        if self._items:
            self._reader.set_result(None)
        return self._reader

    def peek(self) -> Item | None:
        """The first, None when there is none."""
        return self._items[0] if self._items else None

    def take(self) -> Item:
        """Takes the first. IndexError when there is none."""
        return self._items.pop(0)
