"""Generates the stubs from the protos; `--check` says instead whether the committed ones are current.

The path of a proto is the import path of its stub, so nothing is rewritten.
"""

import filecmp
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = Path("agent_orchestration/v1")
STUBS = ROOT / "sdk" / "python"


def main() -> int:
    """Runs the generator; the exit code is 1 when `--check` finds a stale stub."""
    if sys.argv[1:] == ["--check"]:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder))
            stale = differences(Path(folder) / PACKAGE, STUBS / PACKAGE)
        for name in stale:
            print(f"stale stub: {name} (run `make gen`)", file=sys.stderr)
        return 1 if stale else 0
    for old in (STUBS / PACKAGE).glob("*_pb2*"):
        old.unlink()
    generate(STUBS)
    return 0


def generate(target: Path) -> None:
    """Writes every stub below the folder; protos without a service get no service stubs."""
    protos = sorted((ROOT / "protos" / PACKAGE).glob("*.proto"))
    includes = ["-I", str(ROOT / "protos"), "-I", sysconfig.get_path("purelib")]
    outputs = [f"--{kind}_out={target}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *includes, *outputs, *map(str, protos)],
        check=True,
        env=os.environ | {"PATH": path},
        stderr=subprocess.DEVNULL,
    )
    for proto in protos:
        if "\nservice " not in proto.read_text(encoding="utf-8"):
            for empty in (target / PACKAGE).glob(f"{proto.stem}_pb2_grpc.py*"):
                empty.unlink()


def differences(fresh: Path, committed: Path) -> list[str]:
    """Names of stubs that are missing, left over or different."""
    names = {path.name for folder in (fresh, committed) for path in folder.glob("*_pb2*")}
    _, different, missing = filecmp.cmpfiles(fresh, committed, sorted(names), shallow=False)
    return sorted(different + missing)


if __name__ == "__main__":
    sys.exit(main())
