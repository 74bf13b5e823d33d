import sqlite3
import sys

from ao_server.store import database, sqlite_library


def test_tests_use_the_copy_of_sqlite_that_the_server_uses() -> None:
    assert sqlite3 is sys.modules["sqlite3"] is vars(database)["sqlite3"]
    assert sqlite3.sqlite_version_info == sqlite_library.version()
