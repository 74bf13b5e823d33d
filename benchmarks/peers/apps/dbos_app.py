"""DBOS: the process that serves HTTP also runs the workflows of its queue."""

import asyncio
import os

from dbos import DBOS, DBOSConfig
from stamps import Stamps

QUEUE = "peers"
POLL_SECONDS = 0.1
config: DBOSConfig = {
    "name": "peers",
    "system_database_url": os.environ["DATABASE_URL"],
    "log_level": "WARNING",
    "application_version": "1",
    "executor_id": f"executor-{os.getpid()}",
}
DBOS(config=config)
stamps = Stamps.shared()


@DBOS.workflow()
async def noop(number: int) -> None:
    stamps.ran(number)


async def startup() -> None:
    await asyncio.to_thread(launch)


def launch() -> None:
    DBOS.launch()
    DBOS.register_queue(QUEUE, polling_interval_sec=POLL_SECONDS)


async def enqueue(number: int) -> None:
    await DBOS.enqueue_workflow_async(QUEUE, noop, number)
