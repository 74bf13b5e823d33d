"""AccessService."""

from typing import Any

from agent_orchestration.v1 import access_pb2, access_pb2_grpc
from ao_server.engine.access import CACHE_SECONDS, Access
from ao_server.errors import Unauthorized


class AccessServicer(access_pb2_grpc.AccessServiceServicer):
    """Tells gateways whom a credential stands for."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def Authenticate(
        self, request: access_pb2.AuthenticateRequest, context: Any
    ) -> access_pb2.AuthenticateResponse:
        """Says whom a credential stands for. A gateway's own stands for no user."""
        principal = await self._access.authenticate(request.credential)
        if principal.is_gateway:
            raise Unauthorized("the credential is not valid")
        response = access_pb2.AuthenticateResponse()
        response.principal.credential_id = principal.credential_id
        response.principal.project_id = principal.project_id
        response.cache_for.FromMicroseconds(round(CACHE_SECONDS * 1e6))
        return response
