"""A gateway loses its server; what changes meanwhile holds from the moment that the server is back."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
import websockets

from agent_orchestration.v1 import agents_pb2, keys_pb2, keys_pb2_grpc
from tests.access.world import DEADLINE, bearer, gateway_of, until
from tests.api.conftest import serving


async def test_what_happened_meanwhile_is_not_told_to_those_whose_key_has_ended(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        async with serving(tmp_path, None) as api:
            keys = keys_pb2_grpc.KeyServiceStub(api.channel)
            made: list[keys_pb2.ApiKey] = []
            for name in ("ended", "good"):
                request = keys_pb2.CreateKeyRequest(name=name, scopes=["monitoring:read", "agents:read"])
                response: keys_pb2.CreateKeyResponse = await keys.CreateKey(request, metadata=api.admin)
                made.append(response.data)
            secret = (tmp_path / "data" / "gateway.key").read_text().strip()
            gateway, port = await stack.enter_async_context(gateway_of(api.address, secret))
            sockets: list[websockets.ClientConnection] = []
            for key in made:
                socket = await stack.enter_async_context(websockets.connect(f"ws://127.0.0.1:{port}/v1/ws", proxy=None))
                for message in ({"type": "auth", "token": key.key}, {"type": "subscribe", "channel": "agent_events"}):
                    await socket.send(json.dumps(message))
                    assert json.loads(await socket.recv())["type"] in ("authenticated", "subscribed")
                sockets.append(socket)
            home = int(api.address.rsplit(":", 1)[1])
        await until(lambda: not gateway.relay.connected.is_set())
        async with serving(tmp_path, None) as elsewhere:
            await keys_pb2_grpc.KeyServiceStub(elsewhere.channel).RevokeKey(
                keys_pb2.RevokeKeyRequest(key_id=made[0].id), metadata=elsewhere.admin
            )
            created: agents_pb2.CreateAgentResponse = await elsewhere.agents.CreateAgent(
                agents_pb2.CreateAgentRequest(name="n", type="t"), metadata=elsewhere.admin
            )
        async with serving(tmp_path, None, grpc_port=home), asyncio.timeout(DEADLINE):
            assert json.loads(await sockets[1].recv())["payload"]["agent_id"] == created.data.id
            with pytest.raises(websockets.ConnectionClosed):
                # Not even what happened before it was known to have ended.
                raise AssertionError(await sockets[0].recv())
            assert sockets[0].close_code == 4401
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}/v1", trust_env=False) as client:
                answers = [(await client.get("/agents", headers=dict(bearer(key.key)))).status_code for key in made]
            assert answers == [401, 200]
