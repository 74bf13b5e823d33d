"""The data folder: made when it is missing, and held by one server at a time."""

import errno
import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ao_server.errors import CannotStart, InUse


@contextmanager
def locked(data_dir: Path) -> Generator[None, None, None]:
    """The data folder, for this process alone. CannotStart when it cannot be had."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (data_dir / "lock").open("a")
    except OSError as error:
        raise CannotStart(f"the data folder {data_dir} cannot be used: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise InUse(f"another server uses the data folder {data_dir}") from None
        yield
