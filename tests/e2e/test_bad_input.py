"""Every kind of bad input through the real stack: a clear refusal in the documented shape, and nothing is stored."""

import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import pytest

from tests.e2e.processes import ControlPlane

JSON: Final = {"Content-Type": "application/json"}
KEY: Final = {"Idempotency-Key": "key_1"}


@dataclass(frozen=True)
class Bad:
    """A request, and the field that its refusal names; none when the request is wrong as a whole."""

    method: str
    path: str
    body: bytes = b""
    field: str | None = None
    status: int = 400
    # None: as for JSON.
    headers: dict[str, str] | None = None


def task(text: str, named: str | None) -> Bad:
    """A create with these members beside good ones. AGENT and TASK stand for ids that exist."""
    return Bad("POST", "/tasks", f'{{"agent_id":"AGENT","type":"t",{text}}}'.encode(errors="surrogatepass"), named)


def payload(value: str, named: str | None = "payload") -> Bad:
    return task(f'"payload":{{"a":{value}}}', named)


def agent(text: str, named: str | None) -> Bad:
    return Bad("POST", "/agents", f'{{"name":"n","type":"t",{text}}}'.encode(), named)


def listed(query: str, named: str | None, path: str = "/tasks") -> Bad:
    return Bad("GET", f"{path}?{query}", field=named)


def bulk(tasks: str, named: str | None) -> Bad:
    return Bad("POST", "/tasks/bulk", f'{{"tasks":[{tasks}]}}'.encode(), named)


GOOD: Final = '{"agent_id":"AGENT","type":"t"}'
LABELS: Final = json.dumps({f"key_{number}": "" for number in range(65)})
BAD: Final = {
    # Exact types and known names.
    "a number for a text": task('"type":5', "type"),
    "a text for a number": task('"retry":{"attempts":"5"}', "retry.attempts"),
    "a text for a duration": task('"timeout":"5"', "timeout"),
    "a fraction for an integer": task('"retry":{"attempts":1.0}', "retry.attempts"),
    "an integer beyond int32": task('"retry":{"attempts":2147483648}', "retry.attempts"),
    "a number for a flag": task('"retry":{"jitter":1}', "retry.jitter"),
    "the number of an enum": task('"priority":3', "priority"),
    "an enum in capitals": task('"priority":"HIGH"', "priority"),
    "an unknown word": task('"schedule":{"type":"cron"}', "schedule.type"),
    "an object as a list": task('"retry":[]', "retry"),
    "a list as an object": Bad("POST", "/tasks/bulk", b'{"tasks":{}}', "tasks"),
    "a number as a label": task('"labels":{"a":1}', "labels.a"),
    "camelCase": task('"agentId":"AGENT"', "agentId"),
    "an unknown field": task('"paylod":{}', "paylod"),
    "an unknown field below": task('"schedule":{"typ":"immediate"}', "schedule.typ"),
    "a field that is read-only": agent('"id":"agent_mine"', "id"),
    "a field that cannot change": Bad("PUT", "/agents/AGENT", b'{"type":"other"}', "type"),
    "a bad setting": agent('"configuration":{"max_concurrent_tasks":0}', "configuration.max_concurrent_tasks"),
    "a bad setting in a change": Bad(
        "PUT", "/agents/AGENT", b'{"configuration":{"timeout":"1"}}', "configuration.timeout"
    ),
    # What is missing, empty, too much or does not go together.
    "no type": Bad("POST", "/tasks", b'{"agent_id":"AGENT"}', "type"),
    "an empty text": task('"type":""', "type"),
    "an empty name": Bad("PUT", "/agents/AGENT", b'{"name":""}', "name"),
    "an empty schedule": task('"schedule":{}', "schedule.type"),
    "no agent": Bad("POST", "/tasks", b'{"type":"t"}', "agent_id"),
    "an agent and a type of agents": task('"agent_type":"t"', "agent_id"),
    "a time and a delay": task(
        '"schedule":{"type":"delayed","delay":1,"run_at":"2030-01-01T00:00:00Z"}', "schedule.run_at"
    ),
    "a delayed task without a time": task('"schedule":{"type":"delayed"}', "schedule.run_at"),
    "a name that is too long": agent(f'"name":"{"n" * 201}"', "name"),
    "a type that is too long": task(f'"type":"{"t" * 101}"', "type"),
    "an environment that is too long": agent(f'"environment":"{"e" * 65}"', "environment"),
    "too many labels": task(f'"labels":{LABELS}', "labels"),
    "a label that is too long": task(f'"labels":{{"a":"{"v" * 257}"}}', "labels.a"),
    "a duration of nothing": task('"timeout":0', "timeout"),
    "a duration that is negative": task('"schedule":{"type":"delayed","delay":-1}', "schedule.delay"),
    "no tasks": bulk("", "tasks"),
    "too many tasks": bulk(",".join([GOOD] * 1_001), "tasks"),
    "one bad task of three": bulk(f'{GOOD},{GOOD},{{"agent_id":"AGENT"}}', "tasks[2].type"),
    "one task of two without its agent": bulk(f'{GOOD},{{"agent_id":"agent_none","type":"t"}}', "tasks[1].agent_id"),
    "an agent that does not exist": task('"agent_id":"agent_none"', "agent_id"),
    # U+0000 where it cannot be.
    "U+0000 in a name": agent('"name":"a\\u0000"', "name"),
    "U+0000 in a type": task('"type":"\\u0000"', "type"),
    "U+0000 in an id": task('"agent_id":"a\\u0000"', "agent_id"),
    "U+0000 in a label": task('"labels":{"a":"\\u0000"}', "labels.a"),
    "U+0000 in a filter": listed("agent_id=a%00b", "agent_id"),
    # Free JSON.
    "a list for free JSON": task('"payload":[]', "payload"),
    "a text for free JSON": task('"payload":"{}"', "payload"),
    "nested too deep": payload("[" * 100 + "]" * 100),
    "nested beyond reading": payload("[" * 100_000 + "]" * 100_000, None),
    "a lone surrogate": payload('"\\ud800"', None),
    "a lone surrogate in UTF-8": payload('"\ud800"', None),
    "not UTF-8": Bad("POST", "/tasks", b'{"type":"\xff"}'),
    "NaN": payload("NaN", None),
    "Infinity": payload("-Infinity", None),
    "an integer that is too long": payload("1" * 4301),
    "a fraction beyond a double": payload("1e309"),
    "an exponent beyond a double": payload("-1E400"),
    "a configuration that is no object": agent('"configuration":[]', "configuration"),
    "not JSON": Bad("POST", "/tasks", b"type=t"),
    "two values": Bad("POST", "/agents", b'{"name":"n","type":"t"}{}'),
    "a list as the body": Bad("POST", "/agents", b'[{"name":"n","type":"t"}]'),
    # Sizes and kinds of bodies.
    "a payload that is too large": payload(f'"{"x" * 1024 * 1024}"'),
    "a configuration that is too large": agent(f'"configuration":{{"a":"{"x" * 65_536}"}}', "configuration"),
    "a body that is too large": Bad("POST", "/agents", b" " * (4 * 1024 * 1024 + 1), status=413),
    "no type of content": Bad("POST", "/agents", b'{"name":"n","type":"t"}', status=415, headers={}),
    "another type of content": Bad(
        "POST", "/agents", b"name=n&type=t", status=415, headers={"Content-Type": "application/x-www-form-urlencoded"}
    ),
    "an encoded body": Bad("POST", "/agents", b"\x1f\x8b", status=415, headers=JSON | {"Content-Encoding": "gzip"}),
    # Queries, pages and times.
    "an unknown parameter": listed("lmit=1", "lmit"),
    "a parameter given twice": listed("limit=1&limit=1", "limit"),
    "a parameter without a value": listed("limit=", "limit"),
    "a parameter where none is": Bad("POST", "/agents?x=1", b'{"name":"n","type":"t"}', "x"),
    "a page of nothing": listed("limit=0", "limit"),
    "a page that is too long": listed("limit=101", "limit", "/agents"),
    "page zero": listed("page=0", "page"),
    "a page beyond int32": listed("page=2147483648", "page"),
    "a page that is no number": listed("page=1e3", "page"),
    "a page and a place": listed("page=1&starting_after=TASK", "starting_after"),
    "a place that is not there": listed("starting_after=task_none", "starting_after"),
    "a status that is none": listed("status=done", "status", "/agents"),
    "a date alone": listed("created_after=2024-01-01", "created_after"),
    "a time without a zone": listed("created_before=2024-01-01T00:00:00", "created_before"),
    "a time that is none": listed("created_before=2024-02-30T00:00:00Z", "created_before"),
    "a wait that is too long": listed("wait=61", "wait", "/tasks/TASK"),
    "a period that is none": listed("period=2h", "period", "/metrics"),
    "a query that is not UTF-8": listed("type=%ff", "type"),
    # Headers.
    "an empty key": Bad(
        "POST", "/agents", b'{"name":"n","type":"t"}', "idempotency_key", headers=JSON | {"Idempotency-Key": ""}
    ),
    "a key that is too long": Bad(
        "POST", "/agents", b'{"name":"n","type":"t"}', "idempotency_key", headers=JSON | {"Idempotency-Key": "k" * 256}
    ),
    "two keys that differ": Bad(
        "POST", "/agents", b'{"name":"n","type":"t","idempotency_key":"other"}', "idempotency_key", headers=JSON | KEY
    ),
    # What is not there.
    "a task that does not exist": Bad("POST", "/tasks/task_none/cancel", status=404),
    "an agent to change that does not exist": Bad("PUT", "/agents/agent_none", b'{"name":"n"}', status=404),
}


@dataclass
class Stack:
    client: httpx2.Client
    agent_id: str
    task_id: str

    def stored(self) -> Any:
        """Everything that a request could have changed."""
        return [self.client.get(path).json() for path in ("/agents", "/tasks", f"/agents/{self.agent_id}")]

    def send(self, bad: Bad) -> httpx2.Response:
        path, body = bad.path, bad.body
        for word, real in (("AGENT", self.agent_id), ("TASK", self.task_id)):
            path, body = path.replace(word, real), body.replace(word.encode(), real.encode())
        url = httpx2.URL(f"{self.client.base_url}".rstrip("/") + path)
        return self.client.request(bad.method, url, content=body, headers=JSON if bad.headers is None else bad.headers)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    with ControlPlane(tmp_path_factory.mktemp("bad")) as plane:
        plane.start_dev()
        with plane.client() as client:
            agent_id = client.post("/agents", json={"name": "Agent", "type": "worker"}).json()["data"]["id"]
            created = client.post("/tasks", json={"agent_id": agent_id, "type": "t"})
            yield Stack(client, agent_id, created.json()["data"]["id"])


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_it_is_refused_by_name_and_nothing_is_stored(stack: Stack, bad: Bad) -> None:
    before = stack.stored()
    answer = stack.send(bad)
    assert answer.status_code == bad.status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"code", "message", "details", "request_id"}
    assert error["message"]
    assert [each["field"] for each in error["details"]] == ([] if bad.field is None else [bad.field])
    assert stack.stored() == before


def test_what_looks_odd_and_is_good_is_taken(stack: Stack) -> None:
    # The last of two keys, null as absent, a page past the last, a space where a + was meant.
    text = f'{{"agent_id":"agent_none","agent_id":"{stack.agent_id}","type":"t","payload":null,"labels":null}}'
    assert stack.client.post("/tasks", content=text, headers=JSON).status_code == 201
    past = stack.client.get("/tasks", params={"page": 2_147_483_647}).json()
    assert (past["data"], past["pagination"]["page"]) == ([], 2_147_483_647)
    assert stack.client.get("/tasks?created_after=2024-01-01T00:00:00+01:00").status_code == 200
    assert stack.client.get("/tasks?agent_id=agent_none&status=running").json()["data"] == []
