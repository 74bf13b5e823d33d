"""Logs: one line of key=value text per event, to standard error. Credentials and bodies are never logged.

What nobody caught is told in the same way, not by Python, which would print the text of each error.
"""

import logging
import os
import sys
import threading
from typing import Any, Final

from agent_orchestration.tracebacks import told

LEVELS: Final = ("debug", "info", "warning", "error")


def configure(level: str) -> None:
    """Sets up structlog, and sends what libraries log the same way.

    uvicorn's own lines below WARNING hold whole URLs, and so may hold what a client put there by mistake. To be called
    before gRPC is loaded, which would tell of each stranger who comes to its port without TLS.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # With the `server` extra alone, and only when a half starts. Structlog would load rich for a console's sake that is
    # not used here, and each half would start later by a tenth.
    sys.modules.setdefault("rich", None)  # pyright: ignore[reportArgumentType] - None makes an import of it fail
    import structlog

    if sys.modules["rich"] is None:  # pyright: ignore[reportUnnecessaryComparison] - as above
        del sys.modules["rich"]

    number = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING))
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(number),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(lambda exc_info: told(exc_info[1])),
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    log = structlog.get_logger("agent_orchestration")

    def crashed(error: BaseException | None) -> None:
        # Exits and Ctrl-C are none.
        if isinstance(error, Exception):
            log.critical("not_caught", exc_info=error)

    sys.excepthook = lambda kind, error, trace: crashed(error)
    threading.excepthook = lambda caught: crashed(caught.exc_value)
    sys.unraisablehook = lambda caught: crashed(caught.exc_value)


class _Line(logging.Formatter):
    """What libraries log, without what their errors and callbacks were about."""

    def format(self, record: logging.LogRecord) -> str:
        """asyncio has the callback with its arguments, the task and its error after its first words."""
        if record.name == "asyncio":
            first = record.getMessage().partition("\n")[0].partition("(")[0].partition("<")[0]
            record = logging.makeLogRecord({**record.__dict__, "msg": first, "args": ()})
        return super().format(record)

    def formatException(self, ei: Any) -> str:
        """One line."""
        return told(ei[1])
