"""HTTP load on loopback that is not itself the limit: wrk where the system has it, else aiohttp; bounded in time."""

import asyncio
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MIME: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Load:
    """What came of it. Latencies in seconds; `refused`: answers that are no success."""

    requests: int
    seconds: float
    refused: int
    p50: float
    p99: float

    @property
    def a_second(self) -> float:
        """Successful answers per second."""
        return (self.requests - self.refused) / self.seconds


def post(url: str, body: bytes, *, connections: int, seconds: float, headers: Mapping[str, str] | None = None) -> Load:
    """The same POST over and over, on so many keep-alive connections."""
    told = {"Content-Type": MIME, **(headers or {})}
    if shutil.which("wrk"):
        return _wrk(url, body, told, connections, seconds)
    return asyncio.run(_aiohttp(url, body, told, connections, seconds))


def _wrk(url: str, body: bytes, headers: Mapping[str, str], connections: int, seconds: float) -> Load:
    lines = ['wrk.method = "POST"', f"wrk.body = {json.dumps(body.decode())}"]
    lines += [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()]
    # What it prints for people is rounded; this is not.
    lines.append(
        "done = function(summary, latency, requests) io.write(string.format("
        '"counts %d %d %d %d %d\\n", summary.requests, summary.duration, summary.errors.status, '
        "latency:percentile(50), latency:percentile(99))) end"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write("\n".join(lines))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s"]
        output = subprocess.run(
            [*command, script.name, url], check=True, capture_output=True, text=True, timeout=seconds + 30
        ).stdout
    found = re.search(r"counts (\d+) (\d+) (\d+) (\d+) (\d+)", output)
    assert found, output
    requests, took, refused, p50, p99 = (int(each) for each in found.groups())
    return Load(requests, took / 1e6, refused, p50 / 1e6, p99 / 1e6)


async def _aiohttp(url: str, body: bytes, headers: Mapping[str, str], connections: int, seconds: float) -> Load:
    import aiohttp

    took: list[float] = []
    statuses: Counter[bool] = Counter()
    begin = time.perf_counter()

    async def one(session: aiohttp.ClientSession) -> None:
        while (sent := time.perf_counter()) < begin + seconds:
            async with session.post(url, data=body, headers=headers) as response:
                await response.read()
                statuses[response.status < 400] += 1
                took.append(time.perf_counter() - sent)

    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(one(session) for _ in range(connections)))
    took.sort()
    lasted = time.perf_counter() - begin
    return Load(len(took), lasted, statuses[False], took[len(took) // 2], took[len(took) * 99 // 100])
