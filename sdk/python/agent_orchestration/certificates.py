"""The certificate of whoever serves, read anew when its files are replaced."""

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent_orchestration.tls import Serving, Unusable, check_authorities, load_pair

# How often to look at the files. They are read when they were the same at two looks: nobody writes two at once.
LOOK_SECONDS: Final = 1.0

_Look = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Certificate:
    """One state of the files, which belong together."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    context: ssl.SSLContext


class Certificates:
    """The certificate to serve with, whichever it is now."""

    def __init__(self, files: Serving) -> None:
        """Reads the files; Unusable when they cannot be used."""
        self._files = files
        self._looked = self._read_at = self._look()
        self.current = load(files)

    @property
    def asks_clients(self) -> bool:
        """Whether clients need a certificate."""
        return self._files.client_ca is not None

    async def follow(self, log: Any) -> None:
        """Reads the files again whenever they change, until cancelled. What cannot be used is told once to the log, and
        the last that could be stays.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self.refresh, log)

    def refresh(self, log: Any) -> None:
        """One look at the files."""
        before, self._looked = self._looked, self._look()
        if self._looked == self._read_at or self._looked != before:
            return
        self._read_at = self._looked
        try:
            self.current = load(self._files)
        except Unusable as problem:
            log.warning("certificate_not_usable", problem=str(problem), advice="the last one stays in use")
        else:
            log.info("certificate_replaced", file=str(self._files.certificate))

    def context(self) -> ssl.SSLContext:
        """For a socket that listens: each handshake takes the certificate of its moment."""
        first = self.current.context

        def take_current(handshake: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            handshake.context = self.current.context

        first.sni_callback = take_current
        return first

    def _look(self) -> _Look:
        return tuple(_seen(path) for path in (self._files.certificate, self._files.key, self._files.client_ca) if path)


def load(files: Serving) -> Certificate:
    """What the files hold now. Unusable when that is no certificate with its key, or changes meanwhile."""
    before = _contents(files)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    load_pair(context, files.certificate, files.key)
    if files.client_ca is not None:
        check_authorities(context, files.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
        # A session that is resumed would not be asked again for its certificate.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    # OpenSSL reads files alone, gRPC takes bytes: both are to have the same.
    if _contents(files) != before:
        raise Unusable(f"{files.certificate} changes just now")
    certificate, key, client_ca = before
    return Certificate(certificate, key, client_ca, context)


def _contents(files: Serving) -> tuple[bytes, bytes, bytes | None]:
    try:
        client_ca = files.client_ca.read_bytes() if files.client_ca is not None else None
        return files.certificate.read_bytes(), files.key.read_bytes(), client_ca
    except OSError as error:
        raise Unusable(f"{error.filename} cannot be read: {error.strerror}") from None


def _seen(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
