"""The README's tour, run as it is printed: only the ports are others."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.docs.blocks import Block, shell_blocks
from tests.docs.shells import Shell
from tests.e2e.processes import wait_until

ROOT: Final = Path(__file__).resolve().parents[2]
STATED_SECONDS: Final = 30.0
STOP_SECONDS: Final = 12.0


def test_the_tour_does_what_it_says(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    rest, grpc = _free_ports()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_ORCHESTRATION_")}
    environment |= {"AGENT_ORCHESTRATION_SERVER": f"127.0.0.1:{grpc}", "NO_PROXY": "127.0.0.1"}
    blocks = list(shell_blocks(ROOT / "README.md"))
    assert len(blocks) >= 6
    with ExitStack() as running:
        shell = running.enter_context(Shell(tmp_path, environment))
        for block in blocks:
            moved = _moved(block, rest, grpc)
            if moved.mode == "stays running":
                running.enter_context(_in_background(moved, tmp_path, environment))
            elif moved.mode == "until it says so":
                wait_until(lambda block=moved: block.matches(shell.run(block.code)), STATED_SECONDS, _place(moved))
            else:
                printed = shell.run(moved.code)
                assert moved.matches(printed), f"{_place(moved)}:\n{printed}"


@contextmanager
def _in_background(block: Block, folder: Path, environment: dict[str, str]) -> Generator[None, None, None]:
    printed = folder / f"block-{block.line}.out"
    with printed.open("wb") as out, (folder / f"block-{block.line}.err").open("wb") as err:
        process = subprocess.Popen(
            ["sh", "-c", block.code], cwd=folder, env=environment, stdout=out, stderr=err, start_new_session=True
        )
    try:
        wait_until(lambda: process.poll() is None and block.matches(printed.read_text()), STATED_SECONDS, _place(block))
        yield
    finally:
        # The shell and what it runs, as Ctrl-C in its terminal would.
        os.killpg(process.pid, signal.SIGINT)
        process.wait(STOP_SECONDS)


def _moved(block: Block, rest: int, grpc: int) -> Block:
    """The block with ports that are free here."""

    def move(text: str) -> str:
        return text.replace(":3000", f":{rest}").replace(":50051", f":{grpc}")

    code = move(block.code).replace("ao dev", f"ao dev --port {rest} --grpc-port {grpc}")
    return Block(block.line, code, block.mode, move(block.output) if block.output is not None else None)


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return first.getsockname()[1], second.getsockname()[1]


def _place(block: Block) -> str:
    return f"README.md, block at line {block.line}, does not do what it says"
