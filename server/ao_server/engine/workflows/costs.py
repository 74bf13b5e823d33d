"""What an expression may have to go through and to give, from its tree and the size of what it reads: upper bounds, in
characters of JSON. A null counts as one: it comes of what is not there, and holds nothing.

Expressions can repeat what they read, as in `[@, @] | [@, @] | …`: a short one could give more than fits into memory.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

# What join() gives at most: it could otherwise give the square of what it reads.
MAX_JOINED: Final = 4 * 1024 * 1024
# A character that to_string() writes as \uXXXX\uXXXX. It is also twice what any escape becomes.
_ESCAPED: Final = 12
_NUMBER: Final = 24
# The shortest element of a list, with its comma.
_ELEMENT: Final = 2


class Size(NamedTuple):
    """So many characters for each character of the element that is looked at, and so many beside."""

    per: float
    fixed: float

    def plus(self, other: "Size") -> "Size":
        """Both together."""
        return Size(self.per + other.per, self.fixed + other.fixed)

    def times(self, factor: float) -> "Size":
        """So many of it."""
        return Size(self.per * factor, self.fixed * factor)

    def over(self, elements: "Size") -> "Size":
        """All that comes of a list of this size, where this comes of an element."""
        return elements.times(self.per + self.fixed / _ELEMENT)


class Cost(NamedTuple):
    """`work` is what is gone through on the way, `result` what comes of it."""

    work: Size
    result: Size


_NOTHING: Final = Size(0, 0)
_ONE: Final = Size(0, 1)
_ELEMENT_ITSELF: Final = Size(1, 0)


def cost(tree: Mapping[str, Any], whole: int) -> float:
    """Characters that an expression goes through and gives, at most, where all it can read has `whole`."""
    found = _visit(tree, None, whole)
    return found.work.fixed + found.result.fixed


def _visit(node: Mapping[str, Any], here: Size | None, whole: int) -> Cost:
    """What `node` costs. `here`: the size of what it looks at, None at the top."""
    children = node["children"]
    match node["type"]:
        case "subexpression" | "index_expression" | "pipe":
            work, scope = _ONE, here
            for child in children:
                found = _visit(child, scope, whole)
                work, scope = work.plus(found.work), found.result
            return Cost(work, scope or _NOTHING)
        case "field" if here is None:
            return Cost(_ONE, Size(0, whole))
        case "field" | "current" | "identity" | "index" | "slice":
            return Cost(_ONE, here or Size(0, whole))
        case "literal":
            return Cost(_ONE, Size(0, len(json.dumps(node["value"]))))
        case "projection" | "value_projection" | "filter_projection":
            return _projection(children, here, whole)
        case "function_expression":
            return _function(node["value"], children, here, whole)
        case "comparator" | "not_expression":
            each = _all(children, here, whole)
            return Cost(each.work.plus(each.result), Size(0, _NUMBER))
        case "key_val_pair":
            found = _visit(children[0], here, whole)
            return Cost(found.work, found.result.plus(Size(0, len(node["value"]) + 4)))
        case "flatten":
            each = _all(children, here, whole)
            return Cost(each.work.plus(each.result), each.result)
        case _:
            return _all(children, here, whole)


def _all(children: list[Mapping[str, Any]], here: Size | None, whole: int) -> Cost:
    work, result = _ONE, Size(0, _ELEMENT)
    for child in children:
        found = _visit(child, here, whole)
        work, result = work.plus(found.work), result.plus(found.result)
    return Cost(work, result)


def _projection(children: list[Mapping[str, Any]], here: Size | None, whole: int) -> Cost:
    elements = _visit(children[0], here, whole)
    each = [_visit(child, _ELEMENT_ITSELF, whole) for child in children[1:]]
    work = elements.work.plus(elements.result)
    for part in each:
        work = work.plus(part.work.over(elements.result))
    return Cost(work, each[0].result.over(elements.result))


def _function(name: str, children: list[Mapping[str, Any]], here: Size | None, whole: int) -> Cost:
    values = [_visit(child, here, whole) for child in children if child["type"] != "expref"]
    work, result = _ONE, _NOTHING
    for each in values:
        work, result = work.plus(each.work).plus(each.result), result.plus(each.result)
    for reference in (child["children"][0] for child in children if child["type"] == "expref"):
        of_each = _visit(reference, _ELEMENT_ITSELF, whole)
        work = work.plus(of_each.work.plus(of_each.result).over(result))
        if name == "map":
            result = of_each.result.over(result)
    match name:
        case "to_string":
            result = result.times(_ESCAPED)
        case "join" if len(values) > 1:
            result = _joined(values[0].result, values[1].result, whole)
        case _:
            pass
    return Cost(work.plus(result), result)


def _joined(glue: Size, texts: Size, whole: int) -> Size:
    """The glue stands between any two texts; where both are read, neither is longer than all there is."""
    if not glue.per and glue.fixed < whole:
        return texts.times(1 + glue.fixed / _ELEMENT)
    return texts.plus(Size(0, min(MAX_JOINED, whole * whole / 4)))
