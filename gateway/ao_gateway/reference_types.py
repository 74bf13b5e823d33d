"""JSON Schema in words: what a reader of the reference sees of a field's type and limits."""

from typing import Any, Final

Schema = dict[str, Any]

_FORMATS: Final = {"date-time": "time"}


def without_null(schema: Schema) -> Schema:
    """The schema but for the null that stands for an absent field."""
    if isinstance(schema.get("type"), list):
        (kind,) = (each for each in schema["type"] if each != "null")
        return schema | {"type": kind}
    if "anyOf" in schema:
        others = [each for each in schema["anyOf"] if each != {"type": "null"}]
        if len(others) == 1:
            return {key: value for key, value in schema.items() if key != "anyOf"} | others[0]
    return schema


def name_of(schema: Schema) -> str | None:
    """The name of a schema that is kept among the components, None when it has none."""
    reference: str | None = schema.get("$ref")
    return None if reference is None else reference.rsplit("/", 1)[1]


def in_words(schema: Schema) -> str:
    """Type and limits of a value that is no array and has no name: `integer, 1 to 100`."""
    kind = schema.get("type")
    if kind is None:
        return ", ".join(["any JSON value", *_range(schema, None, "x-max-bytes", "bytes")])
    if kind == "object":
        return ", ".join(_object(schema))
    if kind == "string":
        # That a text is not empty goes without saying.
        limits = schema if schema.get("minLength", 0) > 1 else schema | {"minLength": None}
        name = _FORMATS.get(schema.get("format", ""), "text")
        return ", ".join([name, *_range(limits, "minLength", "maxLength", "characters")])
    if kind in ("integer", "number"):
        return ", ".join([kind, *_number(schema)])
    return "true or false"


def items_in_words(schema: Schema) -> str:
    """How many items an array holds: `; 1 to 1,000 items`, empty without limits."""
    return "".join(f"; {limits}" for limits in _range(schema, "minItems", "maxItems", "items"))


def _object(schema: Schema) -> list[str]:
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        parts = ["object of texts", *_range(schema, None, "maxProperties", "pairs")]
        longest: Any = values.get("maxLength")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - JSON
        return [*parts, f"each at most {longest:,} characters"] if longest else parts
    if "properties" in schema:
        return ["object"]
    return ["any JSON object", *_range(schema, None, "x-max-bytes", "bytes")]


def _number(schema: Schema) -> list[str]:
    if "exclusiveMinimum" in schema:
        above = [f"above {schema['exclusiveMinimum']:,}"]
        return above + ([f"at most {schema['maximum']:,}"] if "maximum" in schema else [])
    # The limits of the type itself say nothing.
    most = schema.get("maximum")
    limits = schema if most != 2**31 - 1 else schema | {"maximum": None}
    return _range(limits, "minimum", "maximum", "")


def _range(schema: Schema, least: str | None, most: str, unit: str) -> list[str]:
    low = schema.get(least) if least is not None else None
    high = schema.get(most)
    if low is not None and high is not None:
        text = f"{low:,} to {high:,}"
    elif high is not None:
        text = f"at most {high:,}"
    elif low is not None:
        text = f"at least {low:,}"
    else:
        return []
    return [f"{text} {unit}".rstrip()]
