"""A data processing agent: cleans the records of a CSV file, groups them, sums them up, and loads them into a database.

Run it beside `ao dev`:

    export AGENT_ORCHESTRATION_API_KEY=...
    ao runner examples/agents.py
"""

import asyncio
import csv
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from itertools import islice
from pathlib import Path
from typing import Any

from agent_runner import Agent, Task

FOLDER = Path(__file__).resolve().parent
DATE_FORMATS = ("%Y-%m-%d", "%Y%m%d", "%d/%m/%Y", "%d.%m.%Y")
REGIONS = {
    word: region for region in ("North", "South", "East", "West") for word in (region.lower(), region[0].lower())
}
BATCH = 30

agent = Agent(name="Sales Agent", type="data_processor", max_concurrent_tasks=4)


@agent.task("count_records")
def count(task: Task) -> dict[str, Any]:
    """How many records a file has. Payload: `source`, a path that is absolute or relative to this folder."""
    return {"records": sum(1 for _ in _records(task.payload["source"]))}


@agent.task("clean_records")
def clean(task: Task) -> dict[str, Any]:
    """Reads `count` records from number `first` on, and keeps those that make sense, in one spelling.

    A plain function runs in a thread of its own, so it may block. `pause` seconds between batches slow it down for the
    eyes of whoever watches.
    """
    first, count = int(task.payload["first"]), int(task.payload["count"])
    return _clean(task, list(islice(_records(task.payload["source"]), first, first + count)), first)


@agent.task("clean_part")
def clean_part(task: Task) -> dict[str, Any]:
    """The same for `records` that were read elsewhere; `first` says how many stand before them in their file."""
    return _clean(task, task.payload["records"], int(task.payload["first"]))


@agent.task("group_records")
async def group(task: Task) -> dict[str, Any]:
    """Groups clean `records` by the field `by`; an order that is there twice counts once.

    An async function shares its loop with the agent's other tasks, so it gives way now and then.
    """
    records: Sequence[Mapping[str, Any]] = task.payload["records"]
    by = str(task.payload.get("by", "region"))
    pause = float(task.payload.get("pause", 0))
    groups: dict[str, list[Mapping[str, Any]]] = {}
    seen: set[str] = set()
    for number, record in enumerate(records, 1):
        if record["order_id"] in seen:
            task.log.debug("%s is there twice", record["order_id"])
        else:
            seen.add(record["order_id"])
            groups.setdefault(record[by], []).append(record)
        if number % 100 == 0 or number == len(records):
            await task.progress(100 * number / len(records), f"{len(groups)} groups")
            await asyncio.sleep(pause)
    task.log.info("%d orders in %d groups, %d repeats dropped", len(seen), len(groups), len(records) - len(seen))
    return {"groups": dict(sorted(groups.items())), "repeats": len(records) - len(seen)}


@agent.task("summarise_groups")
async def summarise(task: Task) -> dict[str, Any]:
    """One line of figures for each of `groups`. Money is in cents, so that sums are exact."""
    groups: Mapping[str, Sequence[Mapping[str, Any]]] = task.payload["groups"]
    lines: list[dict[str, Any]] = []
    for number, (name, records) in enumerate(groups.items(), 1):
        revenue = sum(_revenue(record) for record in records)
        sold: Counter[str] = Counter()
        for record in records:
            sold[record["product"]] += _revenue(record)
        lines.append(
            {
                "group": name,
                "orders": len(records),
                "units": sum(record["quantity"] for record in records),
                "revenue_cents": revenue,
                "best_product": max(sold, key=lambda product: (sold[product], product)),
            }
        )
        await task.progress(100 * number / len(groups), name)
        task.log.info("%s: %d orders, %.2f", name, len(records), revenue / 100)
    return {"lines": lines, "total_cents": sum(line["revenue_cents"] for line in lines)}


@agent.task("load_records")
def load(task: Task) -> dict[str, Any]:
    """Puts clean `records` into the table `orders` of an SQLite file, `target`; an order that is there counts once.

    Run twice, it leaves the same table: a task whose process was lost is run again.
    """
    records: Sequence[Mapping[str, Any]] = task.payload["records"]
    with closing(sqlite3.connect(task.payload["target"])) as database, database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS orders (order_id TEXT PRIMARY KEY, date TEXT, region TEXT, product TEXT,"
            " quantity INTEGER, unit_price_cents INTEGER)"
        )
        database.executemany(
            "INSERT OR IGNORE INTO orders VALUES (:order_id, :date, :region, :product, :quantity, :unit_price_cents)",
            records,
        )
        orders, revenue = database.execute("SELECT count(*), sum(quantity * unit_price_cents) FROM orders").fetchone()
    return {"records": len(records), "orders": orders, "revenue_cents": revenue}


def _records(source: str) -> Iterator[dict[str, str | None]]:
    with (FOLDER / source).open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _clean(task: Task, raw: Sequence[Mapping[str, str | None]], first: int) -> dict[str, Any]:
    pause = float(task.payload.get("pause", 0))
    kept: list[dict[str, Any]] = []
    rejected: Counter[str] = Counter()
    for begin in range(0, len(raw), BATCH):
        for number, record in enumerate(raw[begin : begin + BATCH], first + begin + 1):
            try:
                kept.append(_cleaned(record))
            except ValueError as problem:
                rejected[str(problem)] += 1
                task.log.warning("record %d left out: %s", number, problem)
        done = min(begin + BATCH, len(raw))
        task.progress(100 * done / len(raw), f"{done} of {len(raw)} records")
        time.sleep(pause)
    return {"records_processed": len(raw), "records": kept, "rejected": dict(rejected)}


def _cleaned(record: Mapping[str, str | None]) -> dict[str, Any]:
    """The record in one spelling; ValueError says what is wrong with it."""
    text = {name: " ".join((value or "").split()) for name, value in record.items() if name}
    if not text["order_id"]:
        raise ValueError("no order id")
    region = REGIONS.get(text["region"].rstrip(".").lower())
    if region is None:
        raise ValueError("unknown region")
    if not re.fullmatch(r"[1-9][0-9]*", text["quantity"]):
        raise ValueError("not a quantity")
    return {
        "order_id": text["order_id"],
        "date": _date(text["date"]).isoformat(),
        "region": region,
        "product": text["product"].capitalize(),
        "quantity": int(text["quantity"]),
        "unit_price_cents": _cents(text["unit_price"]),
    }


def _date(text: str) -> date:
    for form in DATE_FORMATS:
        try:
            return datetime.strptime(text, form).date()
        except ValueError:
            continue
    raise ValueError("no such date")


def _cents(text: str) -> int:
    try:
        return int(Decimal(text.removeprefix("$").removesuffix("USD").replace(",", "").strip()) * 100)
    except InvalidOperation:
        raise ValueError("no price") from None


def _revenue(record: Mapping[str, Any]) -> int:
    return record["quantity"] * record["unit_price_cents"]


if __name__ == "__main__":
    agent.run()
