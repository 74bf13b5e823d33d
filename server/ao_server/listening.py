"""Where the gRPC server listens: for everybody, with TLS or without, and for the gateway of `ao dev` alone."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from agent_orchestration import environment
from agent_orchestration.certificates import Certificate, Certificates
from ao_server.api.methods import Methods
from ao_server.api.standard_services import StandardServices
from ao_server.errors import CannotStart
from ao_server.settings import Settings

MESSAGE_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Listening:
    """A gRPC server that serves. `address` is what its clients are told: with TLS it begins with `https://`."""

    server: grpc.aio.Server
    address: str
    certificates: Certificates | None


async def listen(settings: Settings, methods: Methods, standard: StandardServices) -> Listening:
    """Begins to serve. CannotStart when an address cannot be had, or a certificate not be used."""
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.max_send_message_length", MESSAGE_BYTES),
        ]
    )
    methods.register(server)
    await standard.register(server)
    certificates = _certificates(settings)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        if certificates is None:
            port = server.add_insecure_port(f"{host}:{settings.grpc_port}")
        else:
            port = server.add_secure_port(f"{host}:{settings.grpc_port}", _credentials(certificates))
    except RuntimeError:
        raise CannotStart(
            f"{host}:{settings.grpc_port} cannot be listened on: it is taken or not an address here"
        ) from None
    if settings.inner_socket is not None:
        _add_socket(server, settings.inner_socket)
    await server.start()
    scheme = "https://" if certificates is not None else ""
    return Listening(server, f"{scheme}{host}:{port}", certificates)


def _certificates(settings: Settings) -> Certificates | None:
    try:
        return Certificates(settings.tls) if settings.tls is not None else None
    except environment.CannotStart as problem:
        raise CannotStart(str(problem)) from None


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    first = certificates.current
    # The stubs of the library leave out that nothing may be new.
    fetch: Any = _replaced(certificates)
    return grpc.dynamic_ssl_server_credentials(
        _configuration(first), fetch, require_client_authentication=certificates.asks_clients
    )


def _replaced(certificates: Certificates) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
    """Gives what each new connection is to be shown, when that has changed since the last."""
    given = certificates.current

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        if certificates.current is given:
            return None
        given = certificates.current
        return _configuration(given)

    return fetch


def _configuration(certificate: Certificate) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificate.key, certificate.certificate)], root_certificates=certificate.client_ca
    )


def _add_socket(server: grpc.aio.Server, path: Path) -> None:
    """Listens on a Unix socket, which is for the user of this process alone."""
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError:
        raise CannotStart(f"{path} cannot be listened on") from None
    finally:
        os.umask(before)
