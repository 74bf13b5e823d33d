"""Generates the stubs from the protos; `--check` says instead whether the committed ones are current.

The path of a proto is the import path of its stub, so nothing is rewritten.
"""

import filecmp
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = Path("agent_orchestration/v1")
STUBS = ROOT / "sdk" / "python"


def main() -> int:
    """Runs the generator; the exit code is 1 when `--check` finds a stale stub, or a proto does not compile."""
    with tempfile.TemporaryDirectory() as folder:
        # Beside the stubs first: a proto that does not compile must not cost the ones that are there.
        failure = generate(Path(folder))
        if failure:
            print(failure, file=sys.stderr)
            return 1
        fresh, committed = Path(folder) / PACKAGE, STUBS / PACKAGE
        if sys.argv[1:] == ["--check"]:
            stale = differences(fresh, committed)
            for name in stale:
                print(f"stale stub: {name} (run `make gen`)", file=sys.stderr)
            return 1 if stale else 0
        for old in committed.glob("*_pb2*"):
            old.unlink()
        for new in fresh.glob("*_pb2*"):
            shutil.copyfile(new, committed / new.name)
    return 0


def generate(target: Path) -> str:
    """Writes every stub below the folder, service stubs only where there is a service. Returns the error, or ""."""
    protos = sorted((ROOT / "protos" / PACKAGE).glob("*.proto"))
    includes = ["-I", str(ROOT / "protos"), "-I", sysconfig.get_path("purelib")]
    outputs = [f"--{kind}_out={target}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *includes, *outputs, *map(str, protos)],
        check=False,
        env=os.environ | {"PATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        return done.stderr.strip() or f"the generator failed with exit code {done.returncode}"
    for proto in protos:
        if "\nservice " not in proto.read_text(encoding="utf-8"):
            for empty in (target / PACKAGE).glob(f"{proto.stem}_pb2_grpc.py*"):
                empty.unlink()
    return ""


def differences(fresh: Path, committed: Path) -> list[str]:
    """Names of stubs that are missing, left over or different."""
    names = {path.name for folder in (fresh, committed) for path in folder.glob("*_pb2*")}
    _, different, missing = filecmp.cmpfiles(fresh, committed, sorted(names), shallow=False)
    return sorted(different + missing)


if __name__ == "__main__":
    sys.exit(main())
