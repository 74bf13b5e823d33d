"""A terminal that runs the blocks of a page."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

STOP_SECONDS: Final = 12.0
END: Final = "--- end of block:"


class Shell:
    """A terminal: what one block sets, the next one has."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["sh"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )

    def __enter__(self) -> "Shell":
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate(timeout=STOP_SECONDS)

    def run(self, code: str) -> str:
        """Runs code to its end; returns what it printed. Fails when its last command failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f'{code}\necho "{END}$?"\n')
        self._process.stdin.flush()
        printed: list[str] = []
        for line in self._process.stdout:
            if line.startswith(END):
                assert line == f"{END}0\n", f"{code}\nfailed:\n{''.join(printed)}"
                return "".join(printed)
            printed.append(line)
        raise AssertionError(f"{code}\nended the shell:\n{''.join(printed)}")
