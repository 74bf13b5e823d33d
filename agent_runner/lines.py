"""Lines of what another process prints, however long they are, in bounded memory."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Final

from agent_runner.text import cut_bytes

CHUNK_BYTES: Final = 64 * 1024
# What is taken of a pipe whose process has ended: more than a pipe holds, in case that others go on writing to it.
DRAIN_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RawLine:
    """A line without its end. `data` is its beginning, of `size` bytes in all."""

    data: bytes
    size: int

    def text(self, limit: int) -> str:
        """In at most `limit` bytes of UTF-8; where something is missing, its end says so."""
        return cut_bytes(self.data, self.size, limit)


class LineSplitter:
    """Cuts a stream of bytes into lines, and keeps `limit` bytes of each."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begun = bytearray()
        self._size = 0

    def feed(self, data: bytes) -> Iterator[RawLine]:
        """The lines that end within the data."""
        *ended, begun = data.split(b"\n")
        for part in ended:
            self._add(part)
            yield self._taken()
        self._add(begun)

    def rest(self) -> Iterator[RawLine]:
        """What came after the last end of a line, if anything did."""
        if self._size:
            yield self._taken()

    def _add(self, part: bytes) -> None:
        self._begun += part[: self._limit - len(self._begun)]
        self._size += len(part)

    def _taken(self) -> RawLine:
        line = RawLine(bytes(self._begun), self._size)
        self._begun.clear()
        self._size = 0
        if line.size == len(line.data) and line.data.endswith(b"\r"):
            return RawLine(line.data[:-1], line.size - 1)
        return line


class Output:
    """One pipe from another process. `take` is called with each of its lines."""

    def __init__(self, pipe: IO[bytes], limit: int, take: Callable[[RawLine], None]) -> None:
        self.take = take
        self._pipe = pipe
        self._splitter = LineSplitter(limit)
        os.set_blocking(pipe.fileno(), False)

    def fileno(self) -> int:
        """For selectors."""
        return self._pipe.fileno()

    def read(self) -> int:
        """Takes a piece, without waiting. 0 at the end, and when there is nothing to be had now."""
        try:
            data = os.read(self._pipe.fileno(), CHUNK_BYTES)
        except BlockingIOError:
            return 0
        for line in self._splitter.feed(data):
            self.take(line)
        return len(data)

    def drain(self) -> None:
        """Takes what is there, the last line also when nothing ends it."""
        left = DRAIN_BYTES
        while left > 0 and (size := self.read()):
            left -= size
        for line in self._splitter.rest():
            self.take(line)

    def close(self) -> None:
        """Hears no more."""
        self._pipe.close()
