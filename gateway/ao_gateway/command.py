"""`ao gateway`: the half that speaks REST and WebSocket."""

import sys
from typing import NoReturn

import click

from agent_orchestration import garbage, logs
from agent_orchestration.certificates import Certificates
from agent_orchestration.environment import CannotStart
from agent_orchestration.parent import watch_parent


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=3000, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option("--server", help="The server's gRPC address.  [default: 127.0.0.1:50051]")
@click.option("--data-dir", help="Folder where the server keeps gateway.key.  [default: .ao]")
@click.option("--log-level", default="info", show_default=True, type=click.Choice(logs.LEVELS))
@click.option("--tls-cert", metavar="FILE", help="Certificate with its chain, in PEM: serve TLS.")
@click.option("--tls-key", metavar="FILE", help="Its key, in PEM.")
@click.option("--tls-client-ca", metavar="FILE", help="Let in only clients with a certificate signed by one of these.")
@click.option("--insecure", is_flag=True, help="Listen beyond this machine without TLS.")
def gateway(
    host: str,
    port: int,
    server: str | None,
    data_dir: str | None,
    log_level: str,
    insecure: bool,
    tls_cert: str | None,
    tls_key: str | None,
    tls_client_ca: str | None,
) -> None:
    """Run the REST and WebSocket gateway."""
    watch_parent()
    garbage.postpone()
    logs.configure(log_level)
    from ao_gateway import listening, settings

    try:
        chosen = settings.read(
            host=host,
            port=port,
            server=server,
            data_dir=data_dir,
            insecure=insecure,
            tls_cert=tls_cert,
            tls_key=tls_key,
            tls_client_ca=tls_client_ca,
        )
        certificates = Certificates(chosen.tls) if chosen.tls is not None else None
        sockets = listening.listen(chosen.host, chosen.port)
    except CannotStart as problem:
        _refuse(problem)

    import asyncio

    import uvloop

    from agent_orchestration.rate_limits import in_memory_or_shared
    from ao_gateway.app import Gateway
    from ao_gateway.server import serve
    from ao_gateway.upstream import key_reader

    def ready() -> None:
        click.echo(f"REST {listening.url(sockets[0], 'http' if certificates is None else 'https')}")
        sys.stdout.flush()
        garbage.resume()

    async def run() -> None:
        gateway = Gateway(
            chosen.server,
            key_reader(chosen.key, chosen.data_dir),
            in_memory_or_shared(chosen.limits, chosen.redis_url),
            origins=chosen.origins,
            trusted_proxies=chosen.trusted_proxies,
            public_url=chosen.public_url,
            server_tls=chosen.server_tls,
        )
        await serve(gateway, sockets, ready, certificates)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())
    except CannotStart as problem:
        _refuse(problem)


def _refuse(problem: CannotStart) -> NoReturn:
    click.echo(f"error: {problem}", err=True)
    sys.exit(2)
