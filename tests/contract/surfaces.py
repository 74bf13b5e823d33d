"""The same request over REST and over gRPC: a scenario written once holds on both surfaces.

REST goes through the gateway. Over gRPC the request's JSON is turned into the message by the descriptors and sent to
the server directly; what comes back is printed by the same rules, so that both answers can be compared.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlencode

import grpc
import httpx2

from ao_gateway import bindings
from ao_gateway.app import FILES
from ao_gateway.bindings import Binding, message_class
from ao_gateway.decode import RequestDecoder
from ao_gateway.encode import ResponseEncoder
from ao_gateway.errors import Refusal, from_rpc_error, printed

Query = Mapping[str, Any]


@dataclass
class Answer:
    status: int
    json: Any
    headers: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def data(self) -> Any:
        return self.json["data"]

    @property
    def code(self) -> str:
        return self.json["error"]["code"]

    @property
    def fields(self) -> list[str]:
        return [each["field"] for each in self.json["error"]["details"]]


class Surface(Protocol):
    name: str

    async def call(
        self, method: str, path: str, body: Any = None, *, query: Query | None = None, key: str | None = None
    ) -> Answer:
        """`path` under /v1; `key`: an idempotency key."""
        ...


class Rest:
    name = "rest"

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def call(
        self, method: str, path: str, body: Any = None, *, query: Query | None = None, key: str | None = None
    ) -> Answer:
        headers = {} if key is None else {"Idempotency-Key": key}
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            headers["Content-Type"] = "application/json"
        target = path + ("?" + urlencode(query, doseq=True) if query else "")
        answer = await self._client.request(method, target, content=content, headers=headers)
        return Answer(answer.status_code, answer.json(), dict(answer.headers))


class Grpc:
    name = "grpc"

    def __init__(self, channel: grpc.aio.Channel, api_key: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {api_key}"),)
        self._paths: bindings.Paths[Binding] = bindings.Paths()
        for binding in bindings.read(FILES):
            self._paths.add(binding.http_method, binding.path, binding)

    async def call(
        self, method: str, path: str, body: Any = None, *, query: Query | None = None, key: str | None = None
    ) -> Answer:
        found = self._paths.find(f"/v1{path}".encode())
        assert found is not None
        binding = found.targets[method]
        content = b"" if body is None else json.dumps(body).encode()
        headers = [] if key is None else [(b"idempotency-key", key.encode())]
        try:
            decoder = RequestDecoder(binding)
            request = decoder.decode(found.values, urlencode(query or {}, doseq=True).encode(), headers, content)
            call = self._channel.unary_unary(
                binding.rpc,
                request_serializer=message_class(binding.request).SerializeToString,
                response_deserializer=message_class(binding.response).FromString,
            )
            response = await call(request, metadata=self._metadata, timeout=90.0)
        except Refusal as refusal:
            return _refused(refusal)
        except grpc.aio.AioRpcError as error:
            return _refused(from_rpc_error(error))
        encoder = ResponseEncoder(binding.response, binding.success_status)
        sent = {name.decode().lower(): value.decode() for name, value in encoder.headers(response)}
        return Answer(encoder.status(response), json.loads(encoder.encode(response)), sent)


def _refused(refusal: Refusal) -> Answer:
    headers = {name.decode().lower(): value.decode() for name, value in refusal.headers}
    return Answer(refusal.status, json.loads(printed(refusal, "req_1")), headers)
