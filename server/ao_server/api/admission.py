"""Who calls, and whether the method is for them: by the credential that came with the call and the method's options."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from google.protobuf import descriptor_pool

from agent_orchestration.scopes import holds, lacking
from agent_orchestration.v1 import options_pb2
from ao_server.engine.access import Access, Principal
from ao_server.errors import Forbidden, Unauthorized

Metadata = Mapping[str, str]
PROJECT_KEY: Final = "agent-orchestration-project"
# Both are believed of gateways alone: where the user called from, the code word with which they refuse the call.
CLIENT_KEY: Final = "agent-orchestration-client"
REFUSAL_KEY: Final = "agent-orchestration-refusal"
_SCHEME: Final = "bearer "


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call a method: the kind of credential, and the scope that a user's needs."""

    audience: int
    scope: str


@cache
def rule_of(method: str) -> Rule:
    """What a method's options say."""
    service, name = method.removeprefix("/").split("/")
    options = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name].GetOptions()
    return Rule(options.Extensions[options_pb2.audience], options.Extensions[options_pb2.scope])


def credential_of(metadata: Metadata) -> str:
    """The bearer credential of a call. Unauthorized without one."""
    authorization = metadata.get("authorization", "")
    if authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise Unauthorized("a credential is needed: authorization: Bearer <key>")
    return authorization[len(_SCHEME) :].strip()


async def identified(access: Access, method: str, metadata: Metadata) -> Principal:
    """Whom a call stands for, a gateway's in the project that it names. Unauthorized for nobody."""
    principal = await access.authenticate(credential_of(metadata))
    if principal.is_gateway and rule_of(method).audience == options_pb2.AUDIENCE_USERS_AND_GATEWAYS:
        return Principal(principal.credential_id, metadata.get(PROJECT_KEY, ""), is_gateway=True)
    return principal


def check(principal: Principal, method: str) -> None:
    """Forbidden when the method is not for this principal."""
    rule = rule_of(method)
    if principal.is_gateway:
        if rule.audience == options_pb2.AUDIENCE_UNSPECIFIED:
            raise Forbidden("a gateway's own credential is not good for this method")
    elif rule.audience == options_pb2.AUDIENCE_GATEWAYS:
        raise Forbidden("this method is for gateways alone")
    elif not holds(principal.scopes, rule.scope):
        raise Forbidden(lacking(rule.scope))
