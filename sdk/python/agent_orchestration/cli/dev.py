"""`ao dev`: the whole control plane on one machine. A small parent that starts the two halves and dies with them."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Final, NoReturn

import click

from agent_orchestration import logs, tls
from agent_orchestration.environment import PREFIX, CannotStart, check_host, value

PORT: Final = click.IntRange(0, 65535)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of REST, WebSocket and gRPC.")
@click.option("--port", default=3000, show_default=True, type=PORT, help="REST; 0: a free one.")
@click.option("--grpc-port", default=50051, show_default=True, type=PORT, help="gRPC; 0: a free one.")
@click.option("--data-dir", help="Folder of the database and keys.  [default: .ao]")
@click.option("--database-url", help="postgresql://... or sqlite:///PATH.  [default: ao.db in the data folder]")
@click.option("--log-level", default="info", show_default=True, type=click.Choice(logs.LEVELS))
@click.option("--tls-cert", metavar="FILE", help="Certificate with its chain, in PEM: serve TLS.")
@click.option("--tls-key", metavar="FILE", help="Its key, in PEM.")
@click.option("--tls-client-ca", metavar="FILE", help="Let in only clients with a certificate signed by one of these.")
@click.option("--insecure", is_flag=True, help="Listen beyond this machine without TLS.")
def dev(
    host: str,
    port: int,
    grpc_port: int,
    data_dir: str | None,
    database_url: str | None,
    log_level: str,
    insecure: bool,
    tls_cert: str | None,
    tls_key: str | None,
    tls_client_ca: str | None,
) -> None:
    """Serve REST, WebSocket and gRPC on this machine until stopped."""
    from agent_orchestration.cli.ports import PortTaken
    from agent_orchestration.cli.stack import Options, Stack

    if port == grpc_port != 0:
        _fail("--port and --grpc-port must differ")
    common = ["--log-level", log_level]
    if insecure:
        common += ["--insecure"]
    if data_dir is not None:
        common += ["--data-dir", data_dir]
    if database_url is not None:
        # Whoever is on the machine sees the arguments of its processes: a password must not be one of a half.
        os.environ[f"{PREFIX}DATABASE_URL"] = database_url
    # For runners that share the environment; between the halves there is nothing to verify.
    os.environ.pop(f"{PREFIX}TLS_CA", None)
    try:
        files = tls.serving(os.environ, certificate=tls_cert, key=tls_key, client_ca=tls_client_ca)
        check_host(host, insecure=insecure or files is not None)
        folder = Path(data_dir or value(os.environ, "DATA_DIR") or ".ao").absolute()
        stack = Stack(Options(host, port, grpc_port, common + _tls(files), folder if files else None))
    except (CannotStart, PortTaken) as problem:
        _fail(str(problem))
    sys.exit(asyncio.run(stack.run()))


def _tls(files: tls.Serving | None) -> list[str]:
    if files is None:
        return []
    options = ["--tls-cert", str(files.certificate), "--tls-key", str(files.key)]
    return options if files.client_ca is None else [*options, "--tls-client-ca", str(files.client_ca)]


def _fail(message: str) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(2)
