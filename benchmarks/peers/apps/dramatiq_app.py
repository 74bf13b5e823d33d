"""Dramatiq on Redis, with its default middleware."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from stamps import Stamps

dramatiq.set_broker(RedisBroker(url=os.environ["REDIS_URL"]))
stamps = Stamps.shared()


@dramatiq.actor
def noop(number: int) -> None:
    stamps.ran(number)


def enqueue(number: int) -> None:
    noop.send(number)
