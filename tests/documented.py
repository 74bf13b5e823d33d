"""The OpenAPI document as a test reads it: whether an answer is one that it describes."""

from copy import deepcopy
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

Json = dict[str, Any]


class Documented:
    """Checks answers, strictly: a field that the document does not name is an error."""

    def __init__(self, document: Json) -> None:
        self.document = deepcopy(document)
        for schema in self.document["components"]["schemas"].values():
            _close(schema)

    def operation(self, name: str) -> tuple[str, str, Json]:
        """Method, path and operation of that id."""
        (found,) = (
            (method, path, operation)
            for path, methods in self.document["paths"].items()
            for method, operation in methods.items()
            if operation["operationId"] == name
        )
        return found

    def problems(self, schema: Json, value: Any) -> list[str]:
        """What is wrong with a value."""
        whole = schema | {"components": self.document["components"]}
        validator: Any = Draft202012Validator(whole, format_checker=FormatChecker())
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]

    def answer_problems(self, name: str, status: int, value: Any) -> list[str]:
        """What is wrong with an operation's answer."""
        _, _, operation = self.operation(name)
        response = operation["responses"].get(str(status))
        if response is None:
            return [f"{status} is not documented"]
        if "$ref" in response:
            response = self.document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
        return self.problems(response["content"]["application/json"]["schema"], value)


def _close(schema: Any) -> None:
    if isinstance(schema, list):
        each: Any
        for each in schema:  # pyright: ignore[reportUnknownVariableType] - JSON
            _close(each)
    elif isinstance(schema, dict):
        if "properties" in schema and "type" in schema:
            schema.setdefault("additionalProperties", False)  # pyright: ignore[reportUnknownMemberType] - JSON
        for each in schema.values():  # pyright: ignore[reportUnknownVariableType] - JSON
            _close(each)
