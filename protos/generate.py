"""Generates the stubs from the protos; `--check` says instead whether the committed ones are current.

The path of a proto is the import path of its stub, so nothing is rewritten. Descriptors at run time have no comments;
`comments.json` beside the stubs keeps them for the reference that the gateway prints.
"""

import filecmp
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf import descriptor_pb2

ROOT = Path(__file__).parent.parent
PACKAGE = Path("agent_orchestration/v1")
STUBS = ROOT / "sdk" / "python"
COMMENTS = "comments.json"


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
        for name in generated(committed):
            (committed / name).unlink()
        for name in generated(fresh):
            shutil.copyfile(fresh / name, committed / name)
    return 0


def generate(target: Path) -> str:
    """Writes every stub below the folder, service stubs only where there is a service. Returns the error, or ""."""
    protos = sorted((ROOT / "protos" / PACKAGE).glob("*.proto"))
    includes = ["-I", str(ROOT / "protos"), "-I", sysconfig.get_path("purelib")]
    outputs = [f"--{kind}_out={target}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    described = target / "descriptors.binpb"
    outputs += [f"--descriptor_set_out={described}", "--include_source_info"]
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
    files = descriptor_pb2.FileDescriptorSet.FromString(described.read_bytes()).file
    found = {name: text for file in files for name, text in comments(file)}
    (target / PACKAGE / COMMENTS).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return ""


def comments(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, str]]:
    """Comments of the file by full name, a value of an enum below its enum; paragraphs without line breaks in them."""
    for location in file.source_code_info.location:
        name = full_name(file, location.path)
        if location.leading_comments and name:
            paragraphs = (" ".join(each.split()) for each in location.leading_comments.split("\n\n"))
            yield name, "\n\n".join(paragraphs)


def full_name(file: descriptor_pb2.FileDescriptorProto, path: Sequence[int]) -> str | None:
    """What stands at a path of source info, None for what has no name of its own, such as an option."""
    node, name = file, file.package
    if not path or len(path) % 2:
        return None
    # Pairs of a field's number and a place in that field, down from the file.
    for number, place in zip(path[::2], path[1::2], strict=True):
        field = node.DESCRIPTOR.fields_by_number[number]
        if not field.is_repeated or field.message_type is None:
            return None
        node = getattr(node, field.name)[place]
        name = f"{name}.{node.name}"
    return name


def generated(folder: Path) -> set[str]:
    """Names of what is generated."""
    return {path.name for pattern in ("*_pb2*", COMMENTS) for path in folder.glob(pattern)}


def differences(fresh: Path, committed: Path) -> list[str]:
    """Names of stubs that are missing, left over or different."""
    names = generated(fresh) | generated(committed)
    _, different, missing = filecmp.cmpfiles(fresh, committed, sorted(names), shallow=False)
    return sorted(different + missing)


if __name__ == "__main__":
    sys.exit(main())
