"""The two services that every gRPC tool knows: health checking and reflection. They take no credential and tell nothing
of any project.
"""

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

SERVING = health_pb2.HealthCheckResponse.SERVING


class StandardServices:
    """Health and reflection of one server."""

    def __init__(self, services: list[str]) -> None:
        """`services`: full names of the services that are served."""
        self._services = services
        self._health = health.aio.HealthServicer()

    async def register(self, server: grpc.aio.Server) -> None:
        """Serves both; from here on the whole server and each service of ours are healthy."""
        target: Any = server
        health_pb2_grpc.add_HealthServicer_to_server(self._health, target)
        names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, target)
        for name in ("", *self._services):
            await self._health.set(name, SERVING)

    async def stopping(self) -> None:
        """Says that no new calls should come."""
        await self._health.enter_graceful_shutdown()
