"""The store: tables, the one writer, and reads by noun. SQL stays in here."""

from ao_server.store import sqlite_library

sqlite_library.install()
