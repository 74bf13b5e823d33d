"""From what a function returned or raised to the outcome of its attempt."""

import json
import traceback
from typing import Any, Final

from agent_orchestration.v1 import runners_pb2
from agent_runner.task import cut

MAX_RESULT_BYTES: Final = 1024 * 1024
MAX_MESSAGE_BYTES: Final = 4 * 1024


def returned(value: Any) -> runners_pb2.Outcome:
    """A dict is the result, None an empty one; anything else, and what JSON cannot hold, is a failure."""
    if value is None:
        return runners_pb2.Outcome(result="{}")
    if not isinstance(value, dict):
        return failed("invalid_result", f"a function must return a dict or None, not {type(value).__name__}")
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        return failed("invalid_result", f"the result is not JSON: {error}")
    if size > MAX_RESULT_BYTES:
        return failed("result_too_large", f"the result has {size} bytes of JSON, at most {MAX_RESULT_BYTES} are taken")
    return runners_pb2.Outcome(result=text)


def raised(error: BaseException) -> runners_pb2.Outcome:
    """The failure of a function that raised."""
    try:
        message = str(error)
    except Exception:
        message = "(its text could not be made)"
    return failed("task_error", f"{type(error).__name__}: {message}" if message else type(error).__name__)


def failed(code: str, message: str) -> runners_pb2.Outcome:
    """A failure with a stable code word."""
    return runners_pb2.Outcome(failure=runners_pb2.Failure(code=code, message=cut(message, MAX_MESSAGE_BYTES)))


def traceback_lines(error: BaseException) -> list[str]:
    """The traceback for the task's log, without the runner's own frames."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "agent_runner" not in frame.filename.replace("\\", "/").split("/")[:-1]]
    return traceback.format_list(own or frames)
