"""The agent of docs/agents.md, run as it is printed."""

import re
from pathlib import Path
from typing import Any

from agent_runner import Agent
from tests.runner.bench import bench

PAGE = Path(__file__).resolve().parents[2] / "docs" / "agents.md"


async def test_the_example_does_what_the_page_says() -> None:
    (code,) = re.findall(r"```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {"__name__": "agents"}
    exec(compile(code, str(PAGE), "exec"), names)
    agent: Agent = names["agent"]
    async with bench(agent, configuration='{"model": "large"}') as made:
        assert (await made.run("sum", '{"numbers": [1, 2.5]}')).result == '{"total":3.5}'
        failure = (await made.run("sum", '{"numbers": []}')).failure
        assert (failure.code, failure.not_retryable) == ("no_numbers", True)
        assert (await made.run("other")).result == '{"type":"other","model":"large"}'
