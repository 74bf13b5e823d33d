"""How errors are told in logs: what they are and where they came up, without the values that were at hand.

The text of an error may hold anything: a row that PostgreSQL would not take, a key that was no number. So it is told of
those alone whose text is about code, or was written by us for whoever reads it.
"""

import traceback
from collections.abc import Sequence
from typing import Final, cast

# A chain or a group that is longer says nothing new.
MAX_ERRORS: Final = 20
MAX_FRAMES: Final = 50
MAX_TEXT: Final = 300
_OURS: Final = frozenset({"agent_orchestration", "ao_gateway", "ao_server"})
_ABOUT_CODE: Final = (AttributeError, ImportError, NameError, RuntimeError, TypeError)
# SQLSTATEs of class 22 are about values, and quote them.
_DATA_EXCEPTION: Final = "22"


def told(error: BaseException) -> str:
    """One line: the error, what it came of, the members of groups; each with its frames, the innermost first."""
    parts: list[str] = []
    seen: set[int] = set()
    left: list[tuple[str, BaseException]] = [("", error)]
    while left and len(seen) < MAX_ERRORS:
        relation, each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        parts.append(f"{relation}{_described(each)}{_frames(each)}")
        if isinstance(each, BaseExceptionGroup):
            members: Sequence[BaseException] = cast("BaseExceptionGroup[BaseException]", each).exceptions
            left += [("in the group ", member) for member in reversed(members)]
        if each.__cause__ is not None:
            left.append(("because of ", each.__cause__))
        elif each.__context__ is not None and not each.__suppress_context__:
            left.append(("while handling ", each.__context__))
    return "; ".join(parts)


def _described(error: BaseException) -> str:
    kind = type(error)
    text = " ".join(_text(error).split())[:MAX_TEXT]
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{name}: {text}" if text else name


def _text(error: BaseException) -> str:
    """What may be told of it beside its type."""
    # SQLAlchemy has the driver's error within its own.
    driver = getattr(error, "orig", None) or error
    state = getattr(driver, "sqlstate", None)
    if isinstance(state, str):
        primary = getattr(getattr(driver, "diag", None), "message_primary", None)
        return state if primary is None or state.startswith(_DATA_EXCEPTION) else f"{state} {primary}"
    # SQLite names tables and columns, never values.
    if type(driver).__module__ == "sqlite3":
        return str(driver)
    if isinstance(error, OSError):
        return error.strerror or ""
    if type(error).__module__.startswith("grpc"):
        code = getattr(error, "code", None)
        return str(code()) if callable(code) else ""
    is_ours = type(error).__module__.partition(".")[0] in _OURS
    return str(error) if is_ours or isinstance(error, _ABOUT_CODE) else ""


def _frames(error: BaseException) -> str:
    frames = [
        f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    shown = frames[::-1][:MAX_FRAMES]
    return f" [{' < '.join(shown)}]" if shown else ""
