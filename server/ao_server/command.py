"""`ao server`: the half that holds the truth."""

import sys
from typing import TYPE_CHECKING

import click

from agent_orchestration import garbage, logs
from agent_orchestration.parent import watch_parent

if TYPE_CHECKING:
    from ao_server.settings import Settings


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--grpc-port", default=50051, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option("--data-dir", help="Folder of the database and keys.  [default: .ao]")
@click.option("--database-url", help="postgresql://... or sqlite:///PATH.  [default: ao.db in the data folder]")
@click.option("--log-level", default="info", show_default=True, type=click.Choice(logs.LEVELS))
@click.option("--tls-cert", metavar="FILE", help="Certificate with its chain, in PEM: serve TLS.")
@click.option("--tls-key", metavar="FILE", help="Its key, in PEM.")
@click.option("--tls-client-ca", metavar="FILE", help="Let in only clients with a certificate signed by one of these.")
@click.option("--insecure", is_flag=True, help="Listen beyond this machine without TLS.")
@click.option("--inner-socket", metavar="PATH", hidden=True)
def server(
    host: str,
    grpc_port: int,
    data_dir: str | None,
    database_url: str | None,
    log_level: str,
    insecure: bool,
    tls_cert: str | None,
    tls_key: str | None,
    tls_client_ca: str | None,
    inner_socket: str | None,
) -> None:
    """Run the gRPC server."""
    watch_parent()
    garbage.postpone()
    logs.configure(log_level)
    from ao_server import settings
    from ao_server.errors import CannotStart

    try:
        _run(
            settings.read(
                host=host,
                grpc_port=grpc_port,
                data_dir=data_dir,
                database_url=database_url,
                insecure=insecure,
                tls_cert=tls_cert,
                tls_key=tls_key,
                tls_client_ca=tls_client_ca,
                inner_socket=inner_socket,
            )
        )
    except CannotStart as problem:
        click.echo(f"error: {problem}", err=True)
        sys.exit(2)
    except ConnectionError as problem:
        click.echo(f"error: {problem}", err=True)
        sys.exit(1)


@click.command("admin-key")
@click.option("--data-dir", help="Folder of the database and keys.  [default: .ao]")
@click.option("--database-url", help="postgresql://... or sqlite:///PATH.  [default: ao.db in the data folder]")
@click.option("--revoke-others", is_flag=True, help="End all other admin keys of the default project.")
def admin_key(data_dir: str | None, database_url: str | None, revoke_others: bool) -> None:
    """Make a new admin key, with the server stopped: for when the last one is lost."""
    import asyncio

    from ao_server import settings
    from ao_server.errors import CannotStart, InUse

    logs.configure("warning")
    try:
        chosen = settings.read(host="127.0.0.1", grpc_port=0, data_dir=data_dir, database_url=database_url)
        from ao_server.recovery import recover

        click.echo(f"API key {asyncio.run(recover(chosen, revoke_others=revoke_others))}")
    except InUse as problem:
        click.echo(f"error: {problem}: stop it first", err=True)
        sys.exit(2)
    except (CannotStart, ConnectionError) as problem:
        click.echo(f"error: {problem}", err=True)
        sys.exit(2)


def _run(chosen: "Settings") -> None:
    from ao_server import folder

    # A refusal need not wait until all libraries are loaded.
    with folder.locked(chosen.data_dir):
        pass
    import asyncio

    import uvloop

    from ao_server import app

    def ready(running: app.Server) -> None:
        click.echo(f"gRPC {running.address}")
        if running.new_admin_key is not None:
            click.echo(f"API key {running.new_admin_key}")
        sys.stdout.flush()
        garbage.resume()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(app.run(chosen, ready))
