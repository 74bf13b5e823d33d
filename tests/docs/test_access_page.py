"""docs/access.md says what the code does."""

from importlib import import_module
from pkgutil import iter_modules

from agent_orchestration import scopes, v1
from agent_orchestration.v1 import keys_pb2, options_pb2
from tests.docs.tables import table, words


def test_every_method_stands_under_its_scope() -> None:
    told = {row[0]: row[1] for row in table("access.md", "scope")}
    assert tuple(told) == scopes.SCOPES
    needed: dict[str, set[str]] = {scope: set() for scope in scopes.SCOPES}
    for module in iter_modules(v1.__path__):
        if module.name.endswith("_pb2"):
            for service in import_module(f"{v1.__name__}.{module.name}").DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    options = method.GetOptions()
                    if options.Extensions[options_pb2.audience] != options_pb2.AUDIENCE_GATEWAYS:
                        needed[options.Extensions[options_pb2.scope]].add(method.name)
    for scope, methods in told.items():
        names = set(words(methods.removeprefix("all of these, and ")))
        assert names - {"nothing yet"} == needed[scope], scope


def test_every_field_of_a_new_key_is_told() -> None:
    told = [row[0] for row in table("access.md", "field")]
    assert sorted(told) == sorted(field.name for field in keys_pb2.CreateKeyRequest.DESCRIPTOR.fields)
