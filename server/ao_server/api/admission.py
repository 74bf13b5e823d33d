"""Who calls, and whether the method is for them: by the credential that came with the call and the method's options."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from google.protobuf import descriptor_pool

from agent_orchestration.scopes import holds, lacking
from agent_orchestration.v1 import options_pb2
from ao_server.engine.access import Principal
from ao_server.errors import Unauthorized

Metadata = Mapping[str, str]
PROJECT_KEY: Final = "agent-orchestration-project"
# Both are believed of gateways alone: where the user called from, the code word with which they refuse the call.
CLIENT_KEY: Final = "agent-orchestration-client"
REFUSAL_KEY: Final = "agent-orchestration-refusal"
_SCHEME: Final = "bearer "
_CREDENTIAL_KEY: Final = "authorization"


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call a method: the kind of credential, and the scope that a user's needs; whether it counts against the
    limits of the credential.
    """

    audience: int
    scope: str
    is_uncounted: bool


@cache
def rule_of(method: str) -> Rule:
    """What a method's options say."""
    service, name = method.removeprefix("/").split("/")
    options = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name].GetOptions()
    said = options.Extensions
    return Rule(said[options_pb2.audience], said[options_pb2.scope], said[options_pb2.uncounted])


def metadata_of(context: Any) -> Metadata:
    """The metadata of a call over gRPC, as far as it is text."""
    given = [(key, value) for key, value in context.invocation_metadata() or () if isinstance(value, str)]
    if sum(key == _CREDENTIAL_KEY for key, _ in given) > 1:
        # Which of them counts must not be a matter of luck.
        given = [pair for pair in given if pair[0] != _CREDENTIAL_KEY]
    return dict(given)


def credential_of(metadata: Metadata) -> str:
    """The bearer credential of a call. Unauthorized without one."""
    authorization = metadata.get(_CREDENTIAL_KEY, "")
    if authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise Unauthorized("a credential is needed: authorization: Bearer <key>")
    return authorization[len(_SCHEME) :].strip()


def acting(principal: Principal, method: str, metadata: Metadata) -> Principal:
    """The principal in the project that it acts in: a gateway names one."""
    if principal.is_gateway and rule_of(method).audience == options_pb2.AUDIENCE_USERS_AND_GATEWAYS:
        return Principal(principal.credential_id, metadata.get(PROJECT_KEY, ""), is_gateway=True)
    return principal


def objection(principal: Principal, method: str) -> str | None:
    """Why the method is not for the principal; None when it is."""
    rule = rule_of(method)
    if principal.is_gateway:
        if rule.audience == options_pb2.AUDIENCE_UNSPECIFIED:
            return "a gateway's own credential is not good for this method"
    elif rule.audience == options_pb2.AUDIENCE_GATEWAYS:
        return "this method is for gateways alone"
    elif not holds(principal.scopes, rule.scope):
        return lacking(rule.scope)
    return None
