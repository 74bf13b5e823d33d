"""Rate limits of users who connect to the server itself. What gateways pass on is counted there."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from agent_orchestration.rate_limits import Limits
from agent_orchestration.v1 import agents_pb2, keys_pb2, keys_pb2_grpc, monitoring_pb2, runners_pb2
from tests.api.conftest import Api, serving

LIMITS = Limits(1000, 5)


@pytest.fixture
async def limited(tmp_path: Path) -> AsyncGenerator[Api]:
    async with serving(tmp_path, None, limits=LIMITS) as api:
        yield api


async def remaining(api: Api, metadata: Any = None) -> int:
    """Makes a call; what is left of the hour behind it."""
    call = api.agents.ListAgents(agents_pb2.ListAgentsRequest(), metadata=metadata or api.admin)
    await call
    trailing = dict(await call.trailing_metadata())
    assert trailing["x-ratelimit-limit"] == "1000"
    assert int(trailing["x-ratelimit-reset"]) % 3600 == 0
    return int(trailing["x-ratelimit-remaining"])


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value


async def test_a_call_over_the_limit_says_when_to_come_back(limited: Api) -> None:
    assert [await remaining(limited) for _ in range(5)] == [999, 998, 997, 996, 995]
    error = await refusal(limited.agents.ListAgents(agents_pb2.ListAgentsRequest(), metadata=limited.admin))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "5 requests per minute" in (error.details() or "")
    trailing: dict[str, Any] = dict(error.trailing_metadata() or ())
    assert trailing["x-ratelimit-remaining"] == "995"
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    first, second = status_pb2.Status.FromString(trailing["grpc-status-details-bin"]).details
    assert first.Unpack(info)
    assert second.Unpack(retry)
    assert info.reason == "rate_limited"
    assert 50 <= retry.retry_delay.seconds <= 60
    # A stream is a call.
    watch = limited.monitoring.WatchEvents(monitoring_pb2.WatchEventsRequest(), metadata=limited.admin)
    assert (await refusal(watch.read())).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_stream_is_one_call_and_tells_at_its_beginning_what_is_left(limited: Api) -> None:
    watch = limited.monitoring.WatchEvents(monitoring_pb2.WatchEventsRequest(), metadata=limited.admin)
    assert dict(await watch.initial_metadata())["x-ratelimit-remaining"] == "999"
    await watch.read()
    await limited.create_agent()
    await watch.read()
    assert await remaining(limited) == 997
    watch.cancel()


async def test_runners_connect_uncounted(limited: Api) -> None:
    agent_id = await limited.create_agent()
    for _ in range(10):
        async with limited.runner(agent_id):
            pass
    assert await remaining(limited) == 998
    connect = limited.runners.Connect(metadata=limited.admin)
    await connect.write(runners_pb2.ConnectRequest(hello=runners_pb2.Hello(agent_id=agent_id, instance_id="one")))
    assert "x-ratelimit-limit" not in dict(await connect.initial_metadata())
    connect.cancel()


async def test_a_call_that_the_credential_is_not_good_for_counts_nothing_but_tells_what_is_left(limited: Api) -> None:
    keys: Any = keys_pb2_grpc.KeyServiceStub(limited.channel)
    made = await keys.CreateKey(keys_pb2.CreateKeyRequest(name="k", scopes=["tasks:read"]), metadata=limited.admin)
    reader = (("authorization", f"Bearer {made.data.key}"),)
    for _ in range(7):
        error = await refusal(limited.agents.ListAgents(agents_pb2.ListAgentsRequest(), metadata=reader))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert dict(error.trailing_metadata() or ())["x-ratelimit-remaining"] == "1000"


async def test_limits_of_a_keys_own_come_first_and_a_change_is_in_force_at_once(limited: Api) -> None:
    keys: Any = keys_pb2_grpc.KeyServiceStub(limited.channel)
    own = keys_pb2.RateLimits(per_hour=0, per_minute=1)
    request = keys_pb2.CreateKeyRequest(name="k", scopes=["agents:read"], rate_limits=own)
    made = await keys.CreateKey(request, metadata=limited.admin)
    metadata = (("authorization", f"Bearer {made.data.key}"),)
    call = limited.agents.ListAgents(agents_pb2.ListAgentsRequest(), metadata=metadata)
    await call
    assert "x-ratelimit-limit" not in dict(await call.trailing_metadata())
    error = await refusal(limited.agents.ListAgents(agents_pb2.ListAgentsRequest(), metadata=metadata))
    assert "1 requests per minute" in (error.details() or "")
    more = keys_pb2.RateLimits(per_hour=1000, per_minute=3)
    await keys.UpdateKey(keys_pb2.UpdateKeyRequest(key_id=made.data.id, rate_limits=more), metadata=limited.admin)
    assert [await remaining(limited, metadata) for _ in range(2)] == [998, 997]
    error = await refusal(limited.agents.ListAgents(agents_pb2.ListAgentsRequest(), metadata=metadata))
    assert "3 requests per minute" in (error.details() or "")


async def test_nobody_but_a_gateway_is_believed_that_it_counts(limited: Api, tmp_path: Path) -> None:
    gateway = (tmp_path / "data" / "gateway.key").read_text().strip()
    for claimed, left in (("", 999), ("true", 998), (limited.key, 997)):
        assert await remaining(limited, (*limited.admin, ("agent-orchestration-gateway", claimed))) == left
    watch = limited.monitoring.WatchEvents(
        monitoring_pb2.WatchEventsRequest(), metadata=(*limited.admin, ("agent-orchestration-gateway", gateway))
    )
    assert "x-ratelimit-limit" not in dict(await watch.initial_metadata())
    watch.cancel()
    assert await remaining(limited) == 996
