"""Executions of every kind for fault tests: how each is begun, what people do to it, and how it must end."""

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

import httpx2

from tests.e2e.processes import ControlPlane
from tests.faults.load import END_SECONDS, RETRY_SECONDS

Json = dict[str, Any]
NO_RETRY: Final = {"attempts": 0}


def step(identifier: str, after: str = "", order: int | None = None, **fields: Any) -> Json:
    """A step that returns what is `after` it in JMESPath, and its id. `order`: absent, the position."""
    given = f"seconds: parameters.seconds, name: '{identifier}', after: {after or '`[]`'}"
    made = {"id": identifier, "agent_type": "worker", "type": "step", "input": f"{{{given}}}", "retry": NO_RETRY}
    return made | ({} if order is None else {"order": order}) | fields


def traces(*steps: str) -> str:
    """In JMESPath: what these have returned, one behind the other."""
    return f"[{', '.join(f'steps.{each}.output.trace' for each in steps)}][]"


UNDONE: Final[Mapping[str, Any]] = {"compensate": {"type": "undo"}}
FAILS: Final = "{seconds: parameters.seconds, name: 'fails', failures: `99`}"
CHAIN: Final = [step("a"), step("b", traces("a")), step("c", traces("b"))]
WORKFLOWS: Final[Mapping[str, list[Json]]] = {
    "chain": CHAIN,
    "groups": [
        *(step(each, order=1) for each in ("a1", "a2")),
        *(step(each, traces("a1", "a2"), order=2) for each in ("b1", "b2", "b3")),
        *(step(each, traces("b1", "b2", "b3"), order=3) for each in ("c1", "c2")),
        step("d", traces("c1", "c2"), order=4),
    ],
    "each": [
        step("extract"),
        step(
            "each",
            for_each="parameters.items",
            max_parallel=3,
            input="{seconds: parameters.seconds, name: item, after: [index]}",
        ),
        step("load", "steps.each.output[].trace[]"),
    ],
    "skips": [step("a"), step("b", condition="parameters.on"), step("c", traces("a"))],
    "retries": [
        step("a", input="{name: 'a', failures: `2`}", retry={"attempts": 3, "backoff": 0.05, "jitter": False}),
        step("b", traces("a")),
    ],
    "continues": [
        step("a", input=FAILS, on_failure="continue"),
        step(
            "each",
            for_each="parameters.items",
            max_parallel=2,
            input="{name: item, failures: index == `1` && `99` || `0`}",
            on_failure="continue",
        ),
        step("c", "steps.each.output[].trace[]"),
    ],
    "compensates": [
        step("a", **UNDONE),
        step("b", traces("a"), **UNDONE),
        step("c", input=FAILS, on_failure="compensate", **UNDONE),
        step("d"),
    ],
    "fails": [
        step("a", input="{name: 'a', failures: `99`}", order=1),
        step("b", order=1),
        {"id": "ask", "kind": "approval", "order": 1},
        step("c", order=2),
    ],
    "fails_once": [
        step("a"),
        step(
            "each",
            traces("a"),
            for_each="parameters.items",
            max_parallel=2,
            input="{name: item, fails_once: index == `2` && parameters.once || `null`}",
        ),
        step("c", "steps.each.output[].trace[]"),
    ],
    # Each step with `depends_on` stands in front of what it waits for.
    "graph": [
        step("h", traces("e", "g"), depends_on=["d", "e", "g"]),
        step("e", traces("c"), depends_on=["c", "d"]),
        step("d", condition="parameters.on", depends_on=["a"]),
        step("c", traces("b"), depends_on=["b"]),
        step("b", traces("a"), depends_on=["a"]),
        step("g", traces("f", "a"), depends_on=["f", "a"]),
        step("a"),
        step("f"),
    ],
    "graph_undone": [
        step("a", **UNDONE),
        step("b", traces("a"), depends_on=["a"], **UNDONE),
        step("c", input=FAILS, depends_on=["a"], on_failure="continue"),
        step("each", for_each="parameters.items", max_parallel=2, input="{name: item}", depends_on=["a"], **UNDONE),
        step("d", input=FAILS, depends_on=["b", "c"], on_failure="compensate"),
        {"id": "ask", "kind": "approval", "depends_on": ["a"]},
        step("e", depends_on=["d", "each"]),
    ],
    "asks": [{"id": "ask", "kind": "approval"}, step("b", "[steps.ask.output.who]")],
    "asks_briefly": [{"id": "ask", "kind": "approval", "timeout": 0.5}, step("b")],
}


def parents(chain_id: str) -> Mapping[str, list[Json]]:
    """Workflows over another, the chain."""
    return {
        "children": [
            {"id": "many", "kind": "workflow", "workflow_id": chain_id, "for_each": "`[1, 2, 3]`", "max_parallel": 2}
            | {"input": "{seconds: parameters.seconds}"},
            step("last", "steps.many.output[].c.trace[]"),
        ],
        "stopped": [
            step("each", for_each="parameters.items", max_parallel=2, order=1, input="{seconds: `0.3`, name: item}"),
            {"id": "child", "kind": "workflow", "workflow_id": chain_id, "order": 1},
            {"id": "ask", "kind": "approval", "order": 1},
            step("last", order=2),
        ],
    }


class Patient:
    """Repeats what was not answered until it is."""

    def __init__(self, plane: ControlPlane, dice: random.Random) -> None:
        self.dice = dice
        self.answered = 0
        self._client = plane.client(timeout=10.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    def post(self, path: str, body: Json | None = None) -> httpx2.Response:
        """The answer; a repeat has the key of the first."""
        headers = {"Idempotency-Key": f"{self.dice.getrandbits(64):x}"}
        return self._answered(lambda: self._client.post(path, json=body or {}, headers=headers), path)

    def made(self, path: str, body: Json | None = None) -> Json:
        """What was made."""
        answer = self.post(path, body)
        assert answer.status_code == 201, answer.text
        return answer.json()["data"]

    def get(self, path: str, **query: Any) -> Json:
        """The whole answer to a question that must succeed."""
        answer = self._answered(lambda: self._client.get(path, params=query), path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ended(self, execution_id: str) -> Json:
        """The execution once it has ended."""
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            shown = self.get(f"/executions/{execution_id}", wait=2)["data"]
            if shown["status"] != "running":
                return shown
        raise AssertionError(f"{execution_id} has not ended: {self.get(f'/executions/{execution_id}/explain')}")

    def listed(self, path: str, **query: Any) -> dict[str, Json]:
        """All objects of a list by id; their number is the total of its pages."""
        found: dict[str, Json] = {}
        page = 0
        while True:
            page += 1
            answer = self.get(path, page=page, limit=100, **query)
            found |= {each["id"]: each for each in answer["data"]}
            if len(answer["data"]) < 100:
                assert answer["pagination"]["total"] == len(found), (path, query)
                return found

    def _answered(self, ask: Callable[[], httpx2.Response], path: str) -> httpx2.Response:
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = ask()
            except httpx2.TransportError:
                answer = None
            if answer is not None and answer.status_code not in (408, 503):
                self.answered += 1
                return answer
            time.sleep(RETRY_SECONDS)
        raise AssertionError(f"{path} is not answered")


def keep(patient: Patient) -> dict[str, str]:
    """Makes the workflows; their ids by name."""

    def made(steps: Mapping[str, list[Json]]) -> dict[str, str]:
        return {name: patient.made("/workflows", {"name": name, "steps": each})["id"] for name, each in steps.items()}

    ids = made(WORKFLOWS)
    return ids | made(parents(ids["chain"]))


def run(name: str, workflow_id: str, patient: Patient) -> str:
    """Sees one execution through to its end, which is as it must be; answers its id."""
    dice = patient.dice
    items = [f"item {index}" for index in range(dice.randrange(4, 12))]
    once = f"{dice.getrandbits(64):x}"
    parameters = {"once": once, "items": items, "on": False, "seconds": round(dice.uniform(0, 0.2), 3)}
    begun = patient.made(f"/workflows/{workflow_id}/execute", {"parameters": parameters})
    identifier: str = begun["id"]
    status = "completed"
    if name in ("asks", "stopped"):
        time.sleep(dice.uniform(0, 0.5))
    match name:
        case "asks":
            verb, status = dice.choice([("approve", "completed"), ("reject", "failed")])
            answer = patient.post(f"/executions/{identifier}/steps/ask/{verb}", {"who": "Ada"})
            assert answer.status_code == 200, answer.text
        case "stopped":
            status = "cancelled"
            answer = patient.post(f"/executions/{identifier}/cancel")
            assert answer.status_code == 200, answer.text
        case "compensates" | "fails" | "graph_undone" | "asks_briefly":
            status = "failed"
        case "fails_once":
            assert patient.ended(identifier)["status"] == "failed"
            patient.made(f"/executions/{identifier}/retry")
        case _:
            pass
    ended = patient.ended(identifier)
    assert ended["status"] == status, (name, ended)
    if status == "completed":
        assert ended["output"] == output_of(name, items), (name, ended)
    elif name != "stopped":
        assert ended["error"]["code"] == _CODES.get(name, "task_error"), (name, ended)
    return identifier


_CODES: Final = {"asks": "rejected", "asks_briefly": "timeout"}


def output_of(name: str, items: list[str]) -> Json:
    """What an execution gives in the end: every trace that led there, in order."""
    match name:
        case "chain":
            trace: list[Any] = ["a", "b", "c"]
        case "groups":
            bs = [each for b in ("b1", "b2", "b3") for each in ("a1", "a2", b)]
            trace = [*bs, "c1", *bs, "c2", "d"]
        case "each":
            trace = [*(each for pair in enumerate(items) for each in pair), "load"]
        case "skips":
            trace = ["a", "c"]
        case "retries":
            trace = ["a", "b"]
        case "continues":
            trace = [*(item for index, item in enumerate(items) if index != 1), "c"]
        case "fails_once":
            trace = [*items, "c"]
        case "graph":
            trace = ["a", "b", "c", "e", "f", "a", "g", "h"]
        case "asks":
            trace = ["Ada", "b"]
        case "children":
            trace = [*["a", "b", "c"] * 3, "last"]
        case _:
            raise ValueError(f"{name} does not complete")
    return {str(trace[-1]): {"trace": trace}}
