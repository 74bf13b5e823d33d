"""The kinds of columns and constraints that tables are made of.

A column with `info={"fixed": True}` never changes after the insert and is left out of updates, so that SQLite does not
touch the indexes it stands in.
"""

from typing import Any

from sqlalchemy import CheckConstraint, Column, Index, String, text


def one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    """Refuses other values."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


def key(*, type_: Any = String) -> Any:
    """Of the primary key."""
    return Column(type_, primary_key=True, nullable=False, info={"fixed": True}, autoincrement=False)


def fixed(type_: Any, *, nullable: bool = False) -> Any:
    """Never changes after the insert."""
    return Column(type_, nullable=nullable, info={"fixed": True})


def changing(type_: Any, *, nullable: bool = False) -> Any:
    """May change."""
    return Column(type_, nullable=nullable)


def partial(name: str, *columns: str, where: str) -> Index:
    """An index of those rows that match."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))
