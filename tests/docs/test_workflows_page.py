"""docs/workflows.md says what the code does, and its examples do what it says."""

import os
import re
import shutil
from pathlib import Path

from agent_orchestration.v1 import executions_pb2, workflows_pb2
from ao_gateway import scalars
from ao_server.engine.workflows import (
    beginning,
    definition,
    evaluation,
    expressions,
    interpreter,
    planner,
    room,
    steps,
)
from tests.docs.blocks import shell_blocks
from tests.docs.shells import Shell
from tests.docs.tables import ROOT, table, words
from tests.e2e.processes import ControlPlane

_SOURCE = ROOT / "server/ao_server/engine/workflows"
_FAILURE = re.compile(r'(?:Failure|CannotBegin)\(\s*"([a-z_]+)"')
_KEPT = re.compile(r'error_code.* = "([a-z_]+)"')


def test_the_examples_do_what_they_say(tmp_path: Path) -> None:
    blocks = list(shell_blocks(ROOT / "docs" / "workflows.md"))
    assert len(blocks) >= 6
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    with ControlPlane(tmp_path) as plane:
        plane.start_dev()
        for file in ("extractor.py", "agents.py"):
            plane.start_runner(tmp_path / "examples" / file)
        environment = os.environ | {"KEY": plane.api_key, "API": plane.rest_url, "NO_PROXY": "127.0.0.1"}
        with Shell(tmp_path, environment) as shell:
            shell.run(
                'call() { curl -sS -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" "$@"; echo; }'
            )
            for block in blocks:
                printed = shell.run(block.code)
                assert block.matches(printed), f"docs/workflows.md, line {block.line}:\n{printed}"


def test_every_field_of_a_step_is_told() -> None:
    told = {row[0]: row[1] for row in table("workflows.md", "field")}
    assert set(told) == {field.name for field in workflows_pb2.WorkflowStep.DESCRIPTOR.fields}
    assert words(told["kind"]) == list(scalars.words_of(workflows_pb2.StepKind.DESCRIPTOR))
    policies = list(scalars.words_of(workflows_pb2.OnFailure.DESCRIPTOR))
    assert [row[0] for row in table("workflows.md", "on_failure")] == policies


def test_every_status_is_told() -> None:
    told = table("workflows.md", "status")
    assert {row[0] for row in told if row[1]} == set(scalars.words_of(executions_pb2.ExecutionStatus.DESCRIPTOR))
    assert {row[0] for row in told if row[2]} == set(scalars.words_of(executions_pb2.StepStatus.DESCRIPTOR))


def test_every_error_of_a_step_is_told() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in _SOURCE.glob("*.py"))
    found = {*_FAILURE.findall(sources), *_KEPT.findall(sources), "internal_error"}
    assert {row[0] for row in table("workflows.md", "word")} == found


def test_every_limit_is_that_of_the_code() -> None:
    assert planner.MAX_OUTPUT_BYTES == evaluation.MAX_INPUT_BYTES == 1024 * 1024
    assert steps.MAX_PARALLEL == 10_000
    assert {row[0]: row[1] for row in table("workflows.md", "what")} == {
        "steps": f"{definition.MAX_STEPS:,}",
        "entries of all depends_on together": f"{definition.MAX_EDGES:,}",
        "expression": f"{expressions.MAX_LENGTH:,} characters",
        "expressions of a workflow together": f"{definition.MAX_EXPRESSIONS:,} characters",
        "nesting, or parentheses, of an expression": f"{expressions.MAX_DEPTH}",
        "characters that an expression may go through and give": f"{evaluation.MAX_WORK:,}",
        "steps of computing an expression, or the inputs of items that begin together": f"{interpreter.MAX_VISITS:,}",
        "inputs of items that begin together": f"{evaluation.MAX_BATCH_BYTES // 1024**2} MiB",
        "items of a for_each": f"{evaluation.MAX_ITEMS:,}",
        "max_parallel": f"{steps.MAX_PARALLEL:,}",
        "max_parallel, unless given": f"{planner.MAX_PARALLEL}",
        "output of a step": "1 MiB",
        "input of a step": "1 MiB",
        "executions within executions": f"{beginning.MAX_DEPTH}",
        "executions of steps that begin or stop at once; further ones follow as soon as others have had their turn": (
            f"{room.EXECUTIONS}"
        ),
    }
