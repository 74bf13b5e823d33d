"""procrastinate on PostgreSQL, through psycopg's pool."""

import os

import procrastinate
from stamps import Stamps

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["DATABASE_URL"]))
stamps = Stamps.shared()


@app.task
async def noop(number: int) -> None:
    stamps.ran(number)


async def startup() -> None:
    await app.open_async()


async def enqueue(number: int) -> None:
    await noop.defer_async(number=number)
