"""A data extraction agent: reads a CSV file and hands its records out in parts, for a pipeline to work on.

ao runner examples/extractor.py
"""

import csv
from pathlib import Path
from typing import Any

from agent_runner import Agent, Task

FOLDER = Path(__file__).resolve().parent

agent = Agent(name="Source Agent", type="data_extractor")


@agent.task("extract_parts")
def extract(task: Task) -> dict[str, Any]:
    """The records of a file as they stand there, in parts of `size`. `source` is absolute or relative to this folder.

    `first` of a part says how many records stand before it.
    """
    size = int(task.payload["size"])
    with (FOLDER / task.payload["source"]).open(newline="", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    parts = [{"first": first, "records": records[first : first + size]} for first in range(0, len(records), size)]
    return {"records": len(records), "parts": parts}


if __name__ == "__main__":
    agent.run()
