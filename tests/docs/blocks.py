"""The fenced blocks of a page that a test runs: shell blocks in order, each with the output that the page states.

A comment line `<!-- stays running -->` before a block starts it in the background and waits for its stated output;
`<!-- until it says so -->` repeats a block until its output is as stated. In stated output `…` stands for anything, and
white space does not count.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r"(?:<!-- (?P<mode>[a-z ]+) -->\n)?```(?P<language>[a-z]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Block:
    """A shell block. `mode` is the comment before it; `output` is None where the page states none."""

    line: int
    code: str
    mode: str | None
    output: str | None

    def matches(self, printed: str) -> bool:
        """Whether the output is what the page states."""
        if self.output is None:
            return True
        parts = [re.escape(_squeezed(part)) for part in self.output.split("…")]
        return re.fullmatch(".*".join(parts), _squeezed(printed), re.DOTALL) is not None


def shell_blocks(page: Path) -> Iterator[Block]:
    """The page's `sh` blocks; a block of another language that follows one directly is its output."""
    text = page.read_text(encoding="utf-8")
    fences = list(_FENCE.finditer(text))
    for index, fence in enumerate(fences):
        if fence["language"] != "sh":
            continue
        after = fences[index + 1] if index + 1 < len(fences) else None
        follows = after is not None and after["language"] in ("json", "text") and after.start() == fence.end() + 1
        line = text.count("\n", 0, fence.start("text")) + 1
        yield Block(line, fence["text"], fence["mode"], after["text"] if after is not None and follows else None)


def _squeezed(text: str) -> str:
    return "".join(text.split())
