"""From what a function returned or raised to the outcome of its attempt. The codes are listed in docs/agents.md."""

import inspect
import json
import traceback
from pathlib import Path
from typing import Any, Final

from agent_orchestration.v1 import runners_pb2
from agent_runner.errors import TASK_ERROR, TaskError, checked_code
from agent_runner.text import cut, shown, storable

MAX_RESULT_BYTES: Final = 1024 * 1024
MAX_MESSAGE_BYTES: Final = 4 * 1024
MAX_TRACEBACK_LINES: Final = 200
_OWN_FOLDER: Final = str(Path(__file__).parent)

INVALID_RESULT: Final = "invalid_result"
RESULT_TOO_LARGE: Final = "result_too_large"
TIMEOUT: Final = "timeout"
NO_HANDLER: Final = "no_handler"
PROCESS_DIED: Final = "process_died"
EXIT_STATUS: Final = "exit_status"
# Trying again would end in the same way.
_FINAL_CODES: Final = frozenset({INVALID_RESULT, RESULT_TOO_LARGE})
# Made once: `json.dumps` makes one for each call with options.
_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def returned(value: object) -> runners_pb2.Outcome:
    """A dict is the result, None an empty one; anything else, and what JSON cannot hold, is a failure."""
    # Making JSON of what most functions return would take longer than all else here. Other types may have odd truths.
    if value is None or (type(value) is dict and not value):
        return runners_pb2.Outcome(result="{}")
    if not isinstance(value, dict):
        return failed(INVALID_RESULT, _not_an_object(value))
    try:
        text = _encode(value)
        size = len(text.encode())
    except UnicodeEncodeError:
        return failed(INVALID_RESULT, "the result holds a lone surrogate, which no JSON reader takes")
    except Exception as error:
        return failed(INVALID_RESULT, f"the result is not JSON: {_described(error)}")
    return too_large(size) if size > MAX_RESULT_BYTES else runners_pb2.Outcome(result=text)


def raised(error: BaseException) -> runners_pb2.Outcome:
    """The failure of a function that raised."""
    if not isinstance(error, TaskError):
        return failed(TASK_ERROR, _described(error))
    outcome = failed(_code(error), _said(error))
    outcome.failure.not_retryable = error.not_retryable
    return outcome


def failed(code: str, message: str) -> runners_pb2.Outcome:
    """A failure with a stable code word."""
    failure = runners_pb2.Failure(
        code=code, message=cut(message, MAX_MESSAGE_BYTES), not_retryable=code in _FINAL_CODES
    )
    return runners_pb2.Outcome(failure=failure)


def too_large(size: int) -> runners_pb2.Outcome:
    """The failure of a result of so many bytes."""
    message = f"the result has {size:,} bytes of JSON; at most {MAX_RESULT_BYTES:,} are taken"
    return failed(RESULT_TOO_LARGE, message)


def timed_out(seconds: float | None) -> runners_pb2.Outcome:
    """The failure of an attempt that was given so many seconds, where that is known."""
    limit = "" if seconds is None else f" of {seconds:g} s"
    return failed(TIMEOUT, f"the attempt took longer than its timeout{limit}")


def cancelled() -> runners_pb2.Outcome:
    """The function ended because it was told to."""
    return runners_pb2.Outcome(cancelled=runners_pb2.Cancelled())


def handed_back(reason: str) -> runners_pb2.Outcome:
    """Not run to the end, through no fault of the task."""
    return runners_pb2.Outcome(handed_back=runners_pb2.HandedBack(reason=reason))


def traceback_lines(error: BaseException) -> list[str]:
    """The traceback for the task's log, without the runner's own frames, shortened in the middle."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OWN_FOLDER):
        trace = trace.tb_next
    try:
        lines = "".join(traceback.format_exception(type(error), error, trace)).splitlines()
    except Exception:
        # Exceptions may have odd texts, causes and attributes of their own.
        lines = [_described(error)]
    if len(lines) > MAX_TRACEBACK_LINES:
        half = MAX_TRACEBACK_LINES // 2
        lines[half:-half] = [f"... {len(lines) - 2 * half:,} lines left out ..."]
    return lines


def _described(error: BaseException) -> str:
    message = storable(shown(error))
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _said(error: TaskError) -> str:
    """Its own words; or, where it has none, those of what it was raised from."""
    text = storable(shown(error))
    if not text and error.__cause__ is not None:
        return _described(error.__cause__)
    # The name of a class of the author's own says something, ours do not.
    is_ours = type(error).__module__ == TaskError.__module__
    return text if text and is_ours else _described(error)


def _code(error: TaskError) -> str:
    try:
        return checked_code(error.code)
    except Exception:
        return TASK_ERROR


def _not_an_object(value: Any) -> str:
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        return "a plain function returned an awaitable: register a function made with `async def`"
    return f"a task function must return a dict or None, not {type(value).__name__}"
