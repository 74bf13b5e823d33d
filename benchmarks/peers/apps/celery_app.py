"""Celery on Redis: JSON messages, no results kept, everything else as it comes."""

import os

from celery import Celery
from stamps import Stamps

app = Celery("peers", broker=os.environ["REDIS_URL"])
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True
stamps = Stamps.shared()


@app.task
def noop(number: int) -> None:
    stamps.ran(number)


def enqueue(number: int) -> None:
    noop.delay(number)
