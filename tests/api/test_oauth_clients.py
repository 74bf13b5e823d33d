"""OAuth clients and their tokens over gRPC, on both engines: made, shown once, rotated, ended."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent_orchestration.v1 import (
    access_pb2,
    access_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
    monitoring_pb2,
    oauth_pb2,
    oauth_pb2_grpc,
    tasks_pb2,
)
from tests.api.conftest import Api, RawRunner

SCOPES = ("tasks:read", "tasks:write")


class Clients:
    """What an admin does with clients, and what a gateway does for them."""

    def __init__(self, api: Api, folder: Path) -> None:
        key = (folder / "data" / "gateway.key").read_text().strip()
        self.api = api
        self.gateway = (("authorization", f"Bearer {key}"),)
        self.stub: Any = oauth_pb2_grpc.OAuthClientServiceStub(api.channel)
        self.access: Any = access_pb2_grpc.AccessServiceStub(api.channel)

    async def create(self, scopes: Sequence[str] = SCOPES, **fields: Any) -> oauth_pb2.OAuthClient:
        request = oauth_pb2.CreateOAuthClientRequest(name="Billing", scopes=scopes, **fields)
        response: oauth_pb2.CreateOAuthClientResponse = await self.stub.CreateOAuthClient(
            request, metadata=self.api.admin
        )
        return response.data

    async def rotate(self, client_id: str, seconds: int | None = None) -> oauth_pb2.OAuthClient:
        request = oauth_pb2.RotateOAuthClientSecretRequest(client_id=client_id)
        if seconds is not None:
            request.overlap.FromSeconds(seconds)
        return (await self.stub.RotateOAuthClientSecret(request, metadata=self.api.admin)).data

    async def revoke(self, client_id: str) -> oauth_pb2.OAuthClient:
        request = oauth_pb2.RevokeOAuthClientRequest(client_id=client_id)
        return (await self.stub.RevokeOAuthClient(request, metadata=self.api.admin)).data

    async def issue(self, client_id: str, secret: str, **fields: Any) -> access_pb2.IssueTokenResponse:
        request = access_pb2.IssueTokenRequest(client_id=client_id, client_secret=secret, **fields)
        return await self.access.IssueToken(request, metadata=self.gateway)

    async def end(self, client: oauth_pb2.OAuthClient, token: str) -> None:
        request = access_pb2.RevokeTokenRequest(client_id=client.id, client_secret=client.client_secret, token=token)
        await self.access.RevokeToken(request, metadata=self.gateway)

    async def status(self, credential: str) -> grpc.StatusCode:
        """What a read of tasks ends with under the credential."""
        metadata = (("authorization", f"Bearer {credential}"),)
        return await status_of(self.api.tasks.ListTasks(tasks_pb2.ListTasksRequest(), metadata=metadata))


async def status_of(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.fixture
def clients(api: Api, tmp_path: Path) -> Clients:
    return Clients(api, tmp_path)


async def test_a_client_is_shown_whole_and_its_secret_once(clients: Clients) -> None:
    made = await clients.create(idempotency_key="one", rate_limits=keys_pb2.RateLimits(per_hour=5))
    assert (made.client_id, made.name, tuple(made.scopes)) == (made.id, "Billing", SCOPES)
    assert (made.token_lifetime.seconds, made.rate_limits.per_hour) == (3600, 5)
    assert made.client_secret.startswith("ao_cs_")
    again = await clients.create(idempotency_key="one", rate_limits=keys_pb2.RateLimits(per_hour=5))
    got = await clients.stub.GetOAuthClient(
        oauth_pb2.GetOAuthClientRequest(client_id=made.id), metadata=clients.api.admin
    )
    listed = await clients.stub.ListOAuthClients(oauth_pb2.ListOAuthClientsRequest(), metadata=clients.api.admin)
    assert listed.pagination.total == 1
    for shown in (again, got.data, *listed.data):
        assert not shown.HasField("client_secret")
        shown.client_secret = made.client_secret
        assert shown == made


async def test_keys_and_clients_are_not_taken_for_each_other(clients: Clients) -> None:
    made = await clients.create()
    keys: Any = keys_pb2_grpc.KeyServiceStub(clients.api.channel)
    listed = await keys.ListKeys(keys_pb2.ListKeysRequest(), metadata=clients.api.admin)
    (admin,) = listed.data
    for call in (
        keys.RevokeKey(keys_pb2.RevokeKeyRequest(key_id=made.id), metadata=clients.api.admin),
        clients.revoke(admin.id),
        clients.rotate(admin.id),
    ):
        assert await status_of(call) is grpc.StatusCode.NOT_FOUND
    assert await clients.status(made.client_secret) is grpc.StatusCode.UNAUTHENTICATED
    assert await status_of(clients.issue(admin.id, clients.api.key)) is grpc.StatusCode.UNAUTHENTICATED
    assert await status_of(clients.create(scopes=["tasks:all"])) is grpc.StatusCode.INVALID_ARGUMENT
    assert await status_of(clients.create(scopes=[])) is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_token_holds_what_was_asked_for_and_never_more_than_its_client(clients: Clients) -> None:
    made = await clients.create()
    admin = await clients.create(scopes=["admin"])

    async def scopes(client: oauth_pb2.OAuthClient, scope: str | None) -> list[str]:
        return list((await clients.issue(client.id, client.client_secret, scope=scope)).scopes)

    assert await scopes(made, None) == await scopes(made, " ") == list(SCOPES)
    assert await scopes(made, "tasks:read  tasks:read") == ["tasks:read"]
    assert await scopes(admin, "tasks:read agents:write") == ["agents:write", "tasks:read"]
    for client, scope in (
        (made, "agents:read"),
        (made, "admin"),
        (admin, "tasks:all"),
        (made, "tasks:read\ttasks:write"),
    ):
        assert await status_of(scopes(client, scope)) is grpc.StatusCode.INVALID_ARGUMENT
    narrow = await clients.issue(made.id, made.client_secret, scope="tasks:write")
    assert narrow.expires_in.seconds == 3600
    assert await clients.status(narrow.access_token) is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("client_id", ["", "client_none", "client\0", "x" * 65_536, "{other}"])
async def test_a_wrong_id_is_as_bad_as_a_wrong_secret(clients: Clients, client_id: str) -> None:
    made, other = await clients.create(), await clients.create()
    wrong = client_id.format(other=other.id)
    assert await status_of(clients.issue(wrong, made.client_secret)) is grpc.StatusCode.UNAUTHENTICATED
    assert await status_of(clients.issue(made.id, "ao_cs_wrong")) is grpc.StatusCode.UNAUTHENTICATED


async def test_after_a_rotation_both_secrets_are_good_for_the_overlap(clients: Clients) -> None:
    made = await clients.create()
    token = (await clients.issue(made.id, made.client_secret)).access_token
    second = await clients.rotate(made.id)
    assert second.previous_expires_at.seconds - second.created_at.seconds in range(3600, 3620)
    for secret in (made.client_secret, second.client_secret):
        assert await status_of(clients.issue(made.id, secret)) is grpc.StatusCode.OK
    third = await clients.rotate(made.id, 0)
    for secret, status in (
        (made.client_secret, grpc.StatusCode.UNAUTHENTICATED),
        (second.client_secret, grpc.StatusCode.UNAUTHENTICATED),
        (third.client_secret, grpc.StatusCode.OK),
    ):
        assert await status_of(clients.issue(made.id, secret)) is status
    assert await clients.status(token) is grpc.StatusCode.OK


async def test_a_token_ends_alone_and_a_client_with_all_its_tokens(clients: Clients) -> None:
    made, other = await clients.create(), await clients.create()
    first, second = [(await clients.issue(made.id, made.client_secret)).access_token for _ in range(2)]
    for token in (first, second):
        assert await clients.status(token) is grpc.StatusCode.OK
    for unknown in ("", "ao_at_none", clients.api.key, made.client_secret):
        await clients.end(made, unknown)
    await clients.end(other, first)
    assert await clients.status(first) is grpc.StatusCode.OK
    for _ in range(2):
        await clients.end(made, first)
        assert await clients.status(first) is grpc.StatusCode.UNAUTHENTICATED
    assert await clients.status(second) is grpc.StatusCode.OK
    revoked = await clients.revoke(made.id)
    assert (await clients.revoke(made.id)).revoked_at == revoked.revoked_at
    assert await clients.status(second) is grpc.StatusCode.UNAUTHENTICATED
    assert await status_of(clients.issue(made.id, made.client_secret)) is grpc.StatusCode.UNAUTHENTICATED
    assert await status_of(clients.rotate(made.id)) is grpc.StatusCode.FAILED_PRECONDITION
    assert await clients.status(clients.api.key) is grpc.StatusCode.OK


@pytest.mark.parametrize("ends", ["token", "client"])
async def test_streams_end_with_their_token_and_with_its_client(clients: Clients, ends: str) -> None:
    made = await clients.create(scopes=["runner:connect", "monitoring:read"])
    agent_id = await clients.api.create_agent()

    async def token() -> tuple[str, tuple[tuple[str, str], ...]]:
        issued = await clients.issue(made.id, made.client_secret)
        return issued.access_token, (("authorization", f"Bearer {issued.access_token}"),)

    watching, as_watcher = await token()
    running, as_runner = await token()
    watch = clients.api.monitoring.WatchEvents(monitoring_pb2.WatchEventsRequest(), metadata=as_watcher)
    await watch.read()
    runner = RawRunner(clients.api.runners.Connect(metadata=as_runner))
    await runner.hello(agent_id=agent_id, instance_id="instance_1")
    if ends == "token":
        await clients.end(made, watching)
        await clients.end(made, running)
    else:
        await clients.revoke(made.id)
    async with asyncio.timeout(1):
        for stream in (runner, RawRunner(watch)):
            assert (await stream.ended())[0] is grpc.StatusCode.UNAUTHENTICATED
