"""The socket between the two halves of `ao dev` when they serve TLS: no certificate fits their own hop for certain."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from agent_orchestration.environment import CannotStart

NAME: Final = "grpc.sock"
# The kernel's limits are 108 on Linux and 104 on macOS, with an end mark; gRPC has another byte of its own.
MAX_BYTES: Final = 100


class InnerSocket:
    """A path for a Unix socket that only this user can reach."""

    def __init__(self, folder: Path) -> None:
        """In the folder, which the server makes for this user alone; in one of its own where that path is too long.

        CannotStart when that is too long as well.
        """
        self.path = folder / NAME
        self._own_folder: Path | None = None
        if len(os.fsencode(self.path)) > MAX_BYTES:
            self._own_folder = Path(tempfile.mkdtemp(prefix="ao-"))
            self.path = self._own_folder / NAME
            if len(os.fsencode(self.path)) > MAX_BYTES:
                self.remove()
                raise CannotStart(f"TMPDIR is too long for a socket: {self.path} has more than {MAX_BYTES} bytes")

    def remove(self) -> None:
        """Leaves nothing behind. What lies in the data folder is the server's: it may be another's by now."""
        if self._own_folder is not None:
            shutil.rmtree(self._own_folder, ignore_errors=True)
