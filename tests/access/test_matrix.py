"""Every RPC under every kind of credential and with every kind of id, over gRPC and REST, read from the protos."""

import json
import secrets
from collections.abc import Iterator
from typing import Any, Final

import websockets
from google.protobuf.descriptor import Descriptor

from agent_orchestration.scopes import ADMIN, SCOPES, lacking
from agent_orchestration.v1 import options_pb2
from tests.access.calling import METHODS, ROUTES, Answer, over_grpc, over_rest
from tests.access.cases import BAD, CASES, EMPTY, NOT_FOUND, PLAIN, REPORTED, SILENT, Case, filled, with_id
from tests.access.world import World, bearer, credentials

OK: Final = {"OK", "200", "201"}
UNAUTHENTICATED: Final = {"UNAUTHENTICATED", "401"}
DENIED: Final = {"PERMISSION_DENIED", "403"}
# Its admins make projects for all; those of another are refused.
DEFAULT_ALONE: Final = {"CreateProject"}


def rule(name: str) -> tuple[int, str]:
    """Audience and scope."""
    options = METHODS[name].GetOptions()
    return options.Extensions[options_pb2.audience], options.Extensions[options_pb2.scope]


OF_USERS: Final = [name for name in METHODS if rule(name)[0] != options_pb2.AUDIENCE_GATEWAYS]
OF_GATEWAYS: Final = [name for name in METHODS if name not in OF_USERS]


def surfaces(name: str) -> list[str]:
    """Where it can be called."""
    return ["grpc", "rest"] if name in ROUTES else ["grpc"]


async def ask(world: World, surface: str, name: str, fields: dict[str, Any], credential: str) -> Answer:
    """The answer of one of them."""
    if surface == "rest":
        return await over_rest(world.client, name, fields, f"Bearer {credential}")
    return await over_grpc(world.api.channel, name, fields, bearer(credential))


async def everywhere(world: World, name: str, fields: dict[str, Any], credential: str) -> list[Answer]:
    """The answers of all of them."""
    return [await ask(world, surface, name, fields, credential) for surface in surfaces(name)]


def texts(message: Descriptor, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Names of all fields of text, nested ones too."""
    for field in message.fields:
        if field.message_type is not None and field.message_type.full_name not in seen:
            yield from texts(field.message_type, seen | {field.message_type.full_name})
        elif field.type in (field.TYPE_STRING, field.TYPE_BYTES):
            yield field.name


def names_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield str(key)  # pyright: ignore[reportUnknownArgumentType]
            yield from names_in(each)
    elif isinstance(value, list):
        for each in value:  # pyright: ignore[reportUnknownVariableType]
            yield from names_in(each)


def test_every_rpc_has_a_rule_and_a_case_with_every_id_that_it_takes() -> None:
    assert CASES.keys() == METHODS.keys()
    for name, method in METHODS.items():
        audience, scope = rule(name)
        assert (scope in SCOPES) == (audience != options_pb2.AUDIENCE_GATEWAYS), name
        named = {each for case in CASES[name] for each in (*names_in(case.fields), *case.covers)}
        # What is not passed through alone belongs to the relayed call.
        unknown = set(texts(method.input_type)) - named - PLAIN
        assert not unknown or name == "Relay", f"{name}: is {unknown} the id of something? It needs a case, or is PLAIN"


async def test_a_scope_is_good_for_what_names_it_and_for_nothing_else(here: World) -> None:
    made = await credentials(here)
    wrong: list[Any] = []
    for name in OF_USERS:
        needed = rule(name)[1]
        fields, _ = await filled(CASES[name][0], here.own)
        for scope, credential in made.by_scope.items():
            if scope in (needed, ADMIN):
                continue
            for answer in await everywhere(here, name, fields, credential):
                if answer.status not in DENIED or answer.message != lacking(needed):
                    wrong.append((name, scope, answer))
        # One that was refused has left no trace: each that is allowed finds what it needs.
        good = {scope: made.by_scope[scope] for scope in (needed, ADMIN)} | made.good
        for kind, credential in good.items():
            expected = DENIED if name in DEFAULT_ALONE else OK
            for surface in surfaces(name):
                fields, _ = await filled(CASES[name][0], here.own)
                answer = await ask(here, surface, name, fields, credential)
                if answer.status not in expected:
                    wrong.append((name, kind, answer))
    assert not wrong


async def test_what_is_no_good_credential_is_refused_everywhere(here: World) -> None:
    made = await credentials(here)
    wrong: list[Any] = []
    for name in METHODS:
        fields, _ = await filled(CASES[name][0], here.own)
        for kind, credential in made.bad.items():
            for answer in await everywhere(here, name, fields, credential):
                if answer.status not in UNAUTHENTICATED or answer.code != "unauthorized":
                    wrong.append((name, kind, answer))
        answers = [await over_grpc(here.api.channel, name, fields, ())]
        if name in ROUTES:
            answers.append(await over_rest(here.client, name, fields, None))
        wrong += [(name, "none", answer) for answer in answers if answer.status not in UNAUTHENTICATED]
    assert not wrong


async def test_a_socket_takes_the_same_credentials_and_asks_for_the_same_scope(here: World) -> None:
    made = await credentials(here)
    refused = made.bad | {"gateway": here.gateway_key}
    codes = {kind: (await socket_answers(here, credential))[-1] for kind, credential in refused.items()}
    assert codes == dict.fromkeys(refused, "4401 unauthorized")
    needed = rule("WatchEvents")[1]
    for scope, credential in (made.by_scope | dict.fromkeys(made.good, made.good["fresh"])).items():
        expected = "subscribed" if scope in (needed, ADMIN, *made.good) else f"forbidden {lacking(needed)}"
        assert await socket_answers(here, credential) == ["authenticated", expected], scope


async def test_a_socket_cannot_resume_from_another_projects_cursor(here: World) -> None:
    theirs, _ = await filled(Case({"after": "<cursor>"}), here.other)
    mine, _ = await filled(Case({"after": "<cursor>"}), here.own)
    for fields, expected in ((mine, "subscribed"), (theirs, "cursor_invalid not a cursor of this feed")):
        assert (await socket_answers(here, here.own.admin, **fields))[1] == expected


async def socket_answers(world: World, credential: str, **fields: Any) -> list[str]:
    """What an auth and a subscription are answered with, up to the end of the socket."""
    heard: list[str] = []
    async with websockets.connect(world.ws_url, proxy=None) as socket:
        await socket.send(json.dumps({"type": "auth", "token": credential}))
        await socket.send(json.dumps({"type": "subscribe", "channel": "agent_events", **fields}))
        try:
            for _ in range(2):
                message = json.loads(await socket.recv())
                error = message.get("error")
                heard.append(f"{error['code']} {error['message']}" if error else message["type"])
        except websockets.ConnectionClosed:
            heard.append(f"{socket.close_code} {socket.close_reason}")
    return heard


async def test_users_and_gateways_cannot_take_each_others_place(here: World) -> None:
    wrong: list[Any] = []
    for name in OF_GATEWAYS:
        answer = await over_grpc(here.api.channel, name, {}, bearer(here.default.admin))
        if answer.status not in DENIED:
            wrong.append((name, answer))
    for name in OF_USERS:
        fields, _ = await filled(CASES[name][0], here.own)
        is_shared = rule(name)[0] == options_pb2.AUDIENCE_USERS_AND_GATEWAYS
        metadata = bearer(here.gateway_key)
        answer = await over_grpc(here.api.channel, name, fields, metadata)
        # Where gateways may call, they say for which project.
        if answer.status not in DENIED or (is_shared and answer.message != "there is no such project"):
            wrong.append((name, answer))
        if name in ROUTES:
            answer = await over_rest(here.client, name, fields, f"Bearer {here.gateway_key}")
            if answer.status not in UNAUTHENTICATED:
                wrong.append((name, answer))
    assert not wrong


async def test_an_id_of_another_project_is_as_good_as_none(both: World) -> None:
    """Byte for byte: not even its existence is told."""
    wrong: list[Any] = []
    for name in OF_USERS:
        for case in CASES[name]:
            if case.foreign in (None, REPORTED):
                continue
            fields, identifier = await filled(case, both.other)
            missing = like(identifier)
            theirs = await everywhere(both, name, fields, both.own.admin)
            none = await everywhere(both, name, with_id(fields, identifier, missing), both.own.admin)
            told = [each.whole.replace(missing, identifier) for each in none]
            if [each.whole for each in theirs] != told or not all(is_as(each, case.foreign) for each in theirs):
                wrong.append((name, theirs, none))
    assert not wrong


def like(identifier: str) -> str:
    """An id, or cursor, of the same kind that does not exist."""
    random = secrets.token_hex(4)
    return random + identifier[8:] if "_" not in identifier else identifier[:-8] + random


def is_as(answer: Answer, foreign: str | None) -> bool:
    """Whether the answer is what the case says of another project's id."""
    if foreign == NOT_FOUND:
        return answer.status in ("NOT_FOUND", "404") and answer.code == "not_found"
    if foreign == EMPTY:
        return answer.status in OK and ("pagination" in answer.whole and "agent_id" not in answer.whole)
    if foreign == SILENT:
        return answer.status in OK
    if foreign is not None and foreign.startswith(BAD):
        return answer.status in ("INVALID_ARGUMENT", "400") and answer.fields == (foreign.removeprefix(BAD),)
    return answer.code == foreign
