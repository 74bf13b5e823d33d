"""The routes: every RPC with a google.api.http option, read from the descriptors, found again by method and path."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar
from urllib.parse import unquote_to_bytes

from google.api import annotations_pb2, http_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FileDescriptor, MethodDescriptor
from google.protobuf.message import Message

from agent_orchestration.v1 import options_pb2

WHOLE_BODY: Final = "*"


@dataclass(frozen=True, slots=True)
class Binding:
    """One route. `body` is the field that the JSON body fills, `*` for the message itself, empty for none."""

    http_method: str
    path: str
    rpc: str
    request: Descriptor
    response: Descriptor
    body: str
    success_status: int
    # What the caller's credential must hold.
    scope: str
    # The answers come one by one: events as Server-Sent Events, data that ends as lines of JSON.
    is_stream: bool = False

    @property
    def line(self) -> Descriptor | None:
        """What a line of JSON holds, None where the answer has none: the items of `data` in all answers of a stream."""
        data = self.response.fields_by_name.get("data")
        return data.message_type if self.is_stream and data is not None and data.is_repeated else None

    @property
    def segments(self) -> list[str]:
        """The path's parts; a parameter is written `{name}`."""
        return _segments(self.path)

    @property
    def parameters(self) -> list[str]:
        """Names of the request's fields that the path fills."""
        return [_parameter(segment) for segment in self.segments if _is_parameter(segment)]


class BadBinding(Exception):
    """The protos ask for a route that this gateway cannot serve, or for two that cannot be told apart."""


def read(files: Iterable[FileDescriptor]) -> list[Binding]:
    """The routes of all RPCs in the files. BadBinding when one is not of the form that is served."""
    return [
        binding
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
        for binding in _of_method(method)
    ]


def message_class(descriptor: Descriptor) -> type[Message]:
    """The class of a message type."""
    return message_factory.GetMessageClass(descriptor)


def header_fields(descriptor: Descriptor) -> dict[str, str]:
    """The HTTP headers that carry fields of a request or response, by the fields' names."""
    headers = {field.name: field.GetOptions().Extensions[options_pb2.header] for field in descriptor.fields}
    return {name: header for name, header in headers.items() if header}


def _of_method(method: MethodDescriptor) -> Iterator[Binding]:
    rule = _http_rule(method)
    if rule.WhichOneof("pattern") is None:
        return
    if method.client_streaming:
        raise BadBinding(f"{method.full_name}: a stream of requests cannot have a route")
    for each in (rule, *rule.additional_bindings):
        binding = _of_rule(method, each)
        _check(binding)
        yield binding


def _http_rule(method: MethodDescriptor) -> http_pb2.HttpRule:
    # googleapis-common-protos has no types for its extensions.
    extension: Any = annotations_pb2.http
    return method.GetOptions().Extensions[extension]


def _of_rule(method: MethodDescriptor, rule: http_pb2.HttpRule) -> Binding:
    pattern = rule.WhichOneof("pattern")
    if pattern is None or pattern == "custom" or rule.response_body:
        raise BadBinding(f"{method.full_name}: custom verbs and response_body are not served")
    assert method.containing_service is not None and method.input_type is not None and method.output_type is not None
    return Binding(
        http_method=pattern.upper(),
        path=getattr(rule, pattern),
        rpc=f"/{method.containing_service.full_name}/{method.name}",
        request=method.input_type,
        response=method.output_type,
        body=rule.body,
        success_status=method.GetOptions().Extensions[options_pb2.success_status] or 200,
        scope=method.GetOptions().Extensions[options_pb2.scope],
        is_stream=method.server_streaming,
    )


def _check(binding: Binding) -> None:
    fields = binding.request.fields_by_name
    if not binding.scope:
        raise BadBinding(f"{binding.rpc}: no scope is named")
    if not binding.path.startswith("/") or not all(binding.segments):
        raise BadBinding(f"{binding.rpc}: the path {binding.path} has an empty part")
    for segment in binding.segments:
        if not _is_parameter(segment) and set(segment) & set("{}*:"):
            raise BadBinding(f"{binding.rpc}: the part {segment} is neither plain nor a whole {{name}}")
    for name in binding.parameters:
        if name not in fields or fields[name].type != fields[name].TYPE_STRING or fields[name].is_repeated:
            raise BadBinding(f"{binding.rpc}: {{{name}}} is not a string field of the request")
    if len(set(binding.parameters)) < len(binding.parameters):
        raise BadBinding(f"{binding.rpc}: a parameter is named twice")
    if binding.body and binding.body != WHOLE_BODY and binding.body not in fields:
        raise BadBinding(f"{binding.rpc}: the body {binding.body} is not a field of the request")
    if binding.body and binding.http_method == "GET":
        raise BadBinding(f"{binding.rpc}: GET has no body")
    if binding.is_stream and binding.http_method != "GET":
        raise BadBinding(f"{binding.rpc}: a stream of answers is opened by GET")
    for name in header_fields(binding.request):
        if fields[name].type != fields[name].TYPE_STRING or fields[name].is_repeated or name in binding.parameters:
            raise BadBinding(f"{binding.rpc}: {name} is not a string that a header can carry")
    for name in header_fields(binding.response):
        flag = binding.response.fields_by_name[name]
        if flag.type != flag.TYPE_BOOL or flag.is_repeated:
            raise BadBinding(f"{binding.rpc}: {name} is not a flag that a header can carry")


TargetType = TypeVar("TargetType")


@dataclass(slots=True)
class _Node(Generic[TargetType]):
    """One part of the tree of paths: literal parts are tried before the parameter."""

    literals: "dict[str, _Node[TargetType]]" = field(default_factory=lambda: {})
    parameter: "_Node[TargetType] | None" = None
    targets: dict[str, TargetType] = field(default_factory=lambda: {})


@dataclass(frozen=True, slots=True)
class Found(Generic[TargetType]):
    """What serves a path: targets by HTTP method, and the values of the path's parameters in order."""

    targets: Mapping[str, TargetType]
    values: list[str]


class Paths(Generic[TargetType]):
    """Targets by method and path."""

    def __init__(self) -> None:
        self._root: _Node[TargetType] = _Node()
        # Those without a parameter, as they come over the wire when nothing in them is escaped.
        self._whole: dict[bytes, Found[TargetType]] = {}

    def add(self, http_method: str, path: str, target: TargetType) -> None:
        """Takes a route. BadBinding when another has the same method and the same path but for parameter names."""
        node = self._root
        for segment in _segments(path):
            if _is_parameter(segment):
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(segment, _Node())
        if http_method in node.targets:
            raise BadBinding(f"there is more than one {http_method} {path}")
        node.targets[http_method] = target
        if "{" not in path:
            self._whole[path.encode()] = Found(node.targets, [])

    def find(self, raw_path: bytes) -> Found[TargetType] | None:
        """What serves the path as it came over the wire, None when nothing does.

        An id that cannot be text, or holds U+0000, is no path: nothing can ever be found there.
        """
        whole = self._whole.get(raw_path)
        if whole is not None:
            return whole
        if raw_path[:1] != b"/":
            return None
        segments: list[str] = []
        for part in raw_path[1:].split(b"/"):
            try:
                segment = (unquote_to_bytes(part) if b"%" in part else part).decode()
            except UnicodeDecodeError:
                return None
            if not segment or "\0" in segment:
                return None
            segments.append(segment)
        return _find(self._root, segments, 0, [])


def _find(node: _Node[TargetType], segments: list[str], place: int, values: list[str]) -> Found[TargetType] | None:
    if place == len(segments):
        return Found(node.targets, values) if node.targets else None
    segment = segments[place]
    literal = node.literals.get(segment)
    if literal is not None:
        found = _find(literal, segments, place + 1, values)
        if found is not None:
            return found
    if node.parameter is not None:
        return _find(node.parameter, segments, place + 1, [*values, segment])
    return None


def _segments(path: str) -> list[str]:
    return path.removeprefix("/").split("/")


def _is_parameter(segment: str) -> bool:
    return segment.startswith("{") and segment.endswith("}")


def _parameter(segment: str) -> str:
    return segment[1:-1]
