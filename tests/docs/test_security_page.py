"""The tests that docs/security.md names exist, and it names each requirement once."""

import re

from tests.docs.tables import ROOT, table, words


def test_every_test_that_it_names_is_there() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert named
    assert named - set(re.findall(r"^(?:async )?def (test_\w+)", sources, re.MULTILINE)) == set()


def test_every_requirement_is_answered_once() -> None:
    rows = table("security.md", "requirement")
    numbers = [number for row in rows for number in words(row[0])]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", number) for number in numbers)
    assert len(numbers) == len(set(numbers))
    assert all(row[2] for row in rows)
