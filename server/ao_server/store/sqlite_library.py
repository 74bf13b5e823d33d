"""One SQLite library for the whole process, chosen before anything imports `sqlite3`.

SQLite before 3.51.3 can lose commits of a WAL database in a rare race, and the interpreters' own copies are older; the
`pysqlite3` package brings a current one. Two copies in one process would break each other's file locks, so the chosen
one takes the place of the standard module everywhere, in aiosqlite and SQLAlchemy too.
"""

import importlib
import sys
from typing import Final

FIXED_IN: Final = (3, 51, 3)
_BACKPORTS: Final = {(3, 44): 6, (3, 50): 7}


def install() -> None:
    """Puts `pysqlite3` in the place of `sqlite3` where the platform has it. Must run before `sqlite3` is used."""
    try:
        modern = importlib.import_module("pysqlite3.dbapi2")
    except ImportError:
        return
    sys.modules["sqlite3"] = importlib.import_module("pysqlite3")
    sys.modules["sqlite3.dbapi2"] = modern


def version() -> tuple[int, int, int]:
    """The version of the library in use."""
    return importlib.import_module("sqlite3").sqlite_version_info


def has_wal_reset_race(version: tuple[int, int, int]) -> bool:
    """Whether this SQLite version is one that can lose commits when a checkpoint races a commit."""
    return version < FIXED_IN and version[2] < _BACKPORTS.get(version[:2], sys.maxsize)
