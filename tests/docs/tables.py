"""The tables of a page, as a test compares them with the code."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_SEPARATOR: Final = re.compile(r"\|( *-+ *\|)+")


def table(page: str, first_header: str) -> list[Sequence[str]]:
    """The rows of the table in `docs/PAGE` whose first column has this header: cells, without the marks of code."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines[:-1]):
        if _SEPARATOR.fullmatch(lines[number + 1]) and _cells(line)[0] == first_header:
            rows = lines[number + 2 :]
            end = next((place for place, row in enumerate(rows) if not row.startswith("|")), len(rows))
            return [_cells(row) for row in rows[:end]]
    raise AssertionError(f"docs/{page} has no table that begins with {first_header!r}")


def words(cell: str) -> list[str]:
    """The words of a cell that lists some."""
    return [word.strip() for word in cell.split(",")]


def _cells(line: str) -> Sequence[str]:
    return [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
