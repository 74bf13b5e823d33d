"""Where agents are defined: files of code, loaded by the runner and again by the children of isolated functions."""

import importlib
import importlib.util
import inspect
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType


class CannotLoad(Exception):
    """A file that cannot be run; the text says where in it and why, in one line."""


@dataclass(frozen=True, slots=True)
class Source:
    """What has to be imported so that a function registers itself: a file, or a module within a package."""

    file: str
    # Dotted; None for a file that stands by itself.
    module: str | None = None

    @classmethod
    def of_caller(cls) -> "Source | None":
        """The module whose import is going on right now. None when there is none, or when it has no file."""
        frame = inspect.currentframe()
        while frame is not None and (frame.f_code.co_name != "<module>" or _is_own(frame)):
            frame = frame.f_back
        if frame is None:
            return None
        file, specification = frame.f_globals.get("__file__"), frame.f_globals.get("__spec__")
        if not isinstance(file, str) or not Path(file).is_file():
            return None
        module = specification.name if specification is not None and specification.parent else None
        return cls(str(Path(file).resolve()), module)

    def load(self) -> None:
        """Imports it. CannotLoad when that fails."""
        if self.module is None:
            load(Path(self.file))
            return
        try:
            importlib.import_module(self.module)
        except BaseException as error:
            raise CannotLoad(_problem(error, Path(self.file), self.file)) from None


def load(file: Path) -> ModuleType:
    """Runs a Python file as a module. CannotLoad when that fails; Ctrl-C passes through."""
    path = file.resolve()
    if not path.is_file():
        raise CannotLoad(f"{file} does not exist" if not path.exists() else f"{file} is not a file")
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or specification.loader is None:
        raise CannotLoad(f"{file} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(specification)
    # Modules beside the file can be imported, and what the file defines can be found by name, as if it had been run.
    sys.path.insert(0, str(path.parent))
    sys.modules[path.stem] = module
    try:
        specification.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise CannotLoad(_problem(error, path, str(file))) from None
    return module


def _problem(error: BaseException, path: Path, file: str) -> str:
    described = " ".join("".join(traceback.format_exception_only(error)[-1:]).split())
    return f"{_place(error, path, file)} cannot be imported: {described}"


def _place(error: BaseException, path: Path, file: str) -> str:
    """FILE:LINE of the innermost frame within the file."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{file}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{file}:{lines[-1]}" if lines else file


def _is_own(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("agent_runner.")
