"""TLS by files in PEM: the settings of whoever serves and whoever connects.

One process has one certificate, `TLS_CERT` with `TLS_KEY`: a server shows it, and so does a client to a server that
asks, unless it has another for that: `TLS_CLIENT_CERT` with `TLS_CLIENT_KEY`. `TLS_CLIENT_CA` makes a server ask;
`TLS_CA` is what a client trusts in place of the public authorities.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent_orchestration.environment import PREFIX, CannotStart, value

HTTPS: Final = "https://"
HTTP: Final = "http://"
UNIX: Final = "unix:"


class Unusable(CannotStart):
    """Files that cannot be used, for now or at all; one line that names the file and holds nothing of it."""


@dataclass(frozen=True, slots=True)
class Serving:
    """The files of whoever serves. With `client_ca`, clients need a certificate that it has signed."""

    certificate: Path
    key: Path
    client_ca: Path | None


@dataclass(frozen=True, slots=True)
class Connecting:
    """The files of whoever connects. Without `ca`, the public authorities are trusted."""

    ca: Path | None
    certificate: Path | None
    key: Path | None

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """What they hold, in the order in which gRPC takes it: CA, key, certificate. Unusable."""
        before = _contents(self.ca), _contents(self.key), _contents(self.certificate)
        if self.ca is not None:
            check_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self.ca)
        if self.certificate is not None and self.key is not None:
            load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self.certificate, self.key)
        if before != (_contents(self.ca), _contents(self.key), _contents(self.certificate)):
            raise Unusable("the files of TLS change just now")
        return before


def serving(
    environment: Mapping[str, str], *, certificate: str | None, key: str | None, client_ca: str | None
) -> Serving | None:
    """The files of whoever serves, from options over environment; None without TLS. CannotStart for half of it."""
    cert_path = _path(environment, certificate, "TLS_CERT")
    key_path = _path(environment, key, "TLS_KEY")
    ca_path = _path(environment, client_ca, "TLS_CLIENT_CA")
    if cert_path is None and key_path is None:
        if ca_path is not None:
            raise CannotStart(f"{PREFIX}TLS_CLIENT_CA needs {PREFIX}TLS_CERT and {PREFIX}TLS_KEY beside it")
        return None
    return Serving(*_whole(cert_path, key_path, "TLS"), ca_path)


def connecting(
    environment: Mapping[str, str], server: str, name: str, *, certificate: str | None = None, key: str | None = None
) -> tuple[str, Connecting | None]:
    """The server's address without its scheme, and the files for TLS to it; None without TLS.

    TLS is spoken to `https://HOST:PORT`, and to HOST:PORT when there is a TLS_CA; never to a Unix socket. CannotStart
    for half of a pair, and for `http://`, which is without TLS, beside a TLS_CA. `name` is what to call the address.
    """
    ca = _path(environment, None, "TLS_CA")
    own = _path(environment, None, "TLS_CLIENT_CERT"), _path(environment, None, "TLS_CLIENT_KEY")
    names = "TLS_CLIENT"
    if own == (None, None):
        own = _path(environment, certificate, "TLS_CERT"), _path(environment, key, "TLS_KEY")
        names = "TLS"
    files = Connecting(ca, *(own if own == (None, None) else _whole(*own, names)))
    if server.startswith(HTTPS):
        return server.removeprefix(HTTPS), files
    if server.startswith(HTTP):
        if ca is not None:
            raise CannotStart(
                f"{name} is without TLS (http://), but {PREFIX}TLS_CA is set: write https://, or unset it"
            )
        return server.removeprefix(HTTP), None
    return server, files if ca is not None and not server.startswith(UNIX) else None


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Gives the context a certificate, with its chain, and its key. Unusable when they are not, or not a pair."""
    try:
        # An encrypted key would make OpenSSL ask for its password at the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise Unusable(f"{key} is not the key of {certificate}") from None
        raise Unusable(f"{certificate} and {key} are no certificate and key in PEM, without a password") from None
    except (OSError, ValueError) as error:
        raise Unusable(f"{certificate} or {key} cannot be read: {error}") from None


def check_authorities(context: ssl.SSLContext, ca: Path) -> None:
    """Makes the context trust the authorities in a file. Unusable when there are none."""
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError:
        raise Unusable(f"{ca} holds no certificates in PEM") from None
    except (OSError, ValueError) as error:
        raise Unusable(f"{ca} cannot be read: {error}") from None


def _path(environment: Mapping[str, str], option: str | None, name: str) -> Path | None:
    given = option or value(environment, name)
    return Path(given).absolute() if given else None


def _whole(certificate: Path | None, key: Path | None, names: str) -> tuple[Path, Path]:
    if certificate is None:
        raise CannotStart(f"{PREFIX}{names}_KEY needs {PREFIX}{names}_CERT beside it")
    if key is None:
        raise CannotStart(f"{PREFIX}{names}_CERT needs {PREFIX}{names}_KEY beside it")
    return certificate, key


def _contents(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from None
