"""Which ids that callers gave their requests are fit to be answered, logged and recorded."""

import re
from typing import Final

MAX_LENGTH: Final = 128
# Printable ASCII, and nothing with one of our credentials in it.
_FIT: Final = re.compile(rf"(?!.*ao_(?:live|cs|at|gw)_)[!-~]{{1,{MAX_LENGTH}}}")


def is_fit(request_id: str) -> bool:
    """Whether it may stand as it is; else the request gets another."""
    return _FIT.fullmatch(request_id) is not None
