"""Logs: one line of key=value text per event, to standard error. Credentials and bodies are never logged."""

import logging
import os
import sys
from typing import Final

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
    logging.basicConfig(
        stream=sys.stderr, level=max(number, logging.WARNING), format="%(levelname)s %(name)s %(message)s"
    )
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(number),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
