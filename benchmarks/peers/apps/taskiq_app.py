"""Taskiq on a Redis stream, which taskiq-redis recommends: a message is acknowledged when its task has run."""

import os

from stamps import Stamps
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(os.environ["REDIS_URL"])
stamps = Stamps.shared()


@broker.task
async def noop(number: int) -> None:
    stamps.ran(number)


async def startup() -> None:
    await broker.startup()


async def enqueue(number: int) -> None:
    await noop.kiq(number)
