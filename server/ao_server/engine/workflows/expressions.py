"""JMESPath over what an execution knows: `parameters`, `steps.<id>.output`, and in a `for_each` `item` and `index`.

What an expression reads is found by walking its tree with scopes in place of values, the way the interpreter walks it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jmespath
from jmespath import exceptions
from jmespath.functions import TYPES_MAP, Functions
from jmespath.parser import Parser

from ao_server.engine.workflows import costs
from ao_server.engine.workflows.interpreter import Budget, Interpreter

MAX_LENGTH: Final = 2_000
# The parser and the interpreter are recursive: what is accepted must parse and run at any depth of our own stack.
MAX_DEPTH: Final = 100
# The parser keeps 512 trees; big ones together would be more memory than their reuse is worth.
_KEPT_NODES: Final = 100


class BadExpression(Exception):
    """An expression that does not parse, or reads what there is not, or fails on its values; the text says why."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression. `steps`: whose outputs it reads. `reads_item`: or `index`. `size`: nodes of its tree."""

    text: str
    steps: frozenset[str]
    reads_item: bool
    size: int
    _tree: Mapping[str, Any] = field(repr=False, compare=False)

    def cost(self, characters: int) -> float:
        """How many characters it may go through and give, where all that it can read has so many."""
        return costs.cost(self._tree, characters)

    def evaluate(self, values: Mapping[str, Any], budget: Budget) -> Any:
        """The result over `{"parameters": …, "steps": {id: {"output": …}}, "item": …, "index": …}`.

        Parts of the result may be parts of `values` or of the expression: they must not be changed. Raises
        BadExpression, with a text that quotes no value; TooCostly when the budget is spent.
        """
        try:
            return Interpreter(budget).visit(self._tree, values)
        except exceptions.JMESPathTypeError as error:
            kind = TYPES_MAP.get(error.actual_type, error.actual_type)
            raise BadExpression(f"{error.function_name}() does not take a value of type {kind}") from None
        except RecursionError:
            raise BadExpression("the values are nested too deeply") from None
        except OverflowError:
            raise BadExpression("a number is too large") from None
        except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError):
            raise BadExpression("cannot be computed with these values") from None


def parse(text: str) -> Expression:
    """The expression, at most 2,000 characters long. Raises BadExpression."""
    if not text.strip():
        raise BadExpression("is empty")
    if len(text) > MAX_LENGTH:
        raise BadExpression(f"has {len(text):,} characters, at most {MAX_LENGTH:,} are allowed")
    # Parentheses leave no nodes in the tree, but the parser recurses into them.
    if text.count("(") > MAX_DEPTH:
        raise BadExpression(f"has more than {MAX_DEPTH} parentheses")
    walk = _Walk()
    try:
        tree = _node(jmespath.compile(text).parsed)
        _whole(walk.visit(tree, _ROOT))
    except RecursionError:
        raise BadExpression("is nested too deeply") from None
    except exceptions.JMESPathError as error:
        raise BadExpression(_syntax(error)) from error
    except UnicodeEncodeError as error:
        raise BadExpression("has half of a surrogate pair") from error
    if walk.size > _KEPT_NODES:
        Parser.purge()
    return Expression(text, frozenset(walk.steps), walk.reads_item, walk.size, tree)


def is_true(value: Any) -> bool:
    """Whether a condition with this result holds: None, False and all that is empty do not; 0 does."""
    return not (value is None or value is False or value == "" or value == [] or value == {})


@dataclass(frozen=True, slots=True)
class _Scope:
    """What a part of an expression looks at, as users write it. `_FREE` is any value below a root."""

    text: str
    step: str | None = None


_ROOT: Final = _Scope("everything at once (`@`)")
_STEPS: Final = _Scope("`steps` as a whole")
_FREE: Final = _Scope("")


@dataclass(slots=True)
class _Walk:
    steps: set[str] = field(default_factory=set[str])
    reads_item: bool = False
    size: int = 0
    _depth: int = 0

    def visit(self, node: Mapping[str, Any], scope: _Scope) -> _Scope:
        """What the node's value is, seen from `scope`."""
        self.size += 1
        if self._depth == MAX_DEPTH:
            raise BadExpression(f"is nested more than {MAX_DEPTH} deep")
        self._depth += 1
        found = self._visit(node, scope)
        self._depth -= 1
        return found

    def _visit(self, node: Mapping[str, Any], scope: _Scope) -> _Scope:
        children = node["children"]
        match node["type"]:
            case "subexpression" | "index_expression" | "pipe":
                for child in children:
                    scope = self.visit(child, scope)
                return scope
            case "field":
                return self._field(node["value"], scope)
            case "current" | "identity":
                return _whole(scope) if scope is _ROOT else scope
            case "index" | "slice":
                return _whole(scope)
            case "projection" | "value_projection" | "filter_projection":
                _whole(self.visit(children[0], scope))
                for child in children[1:]:
                    self.visit(child, _FREE)
                return _FREE
            case "function_expression":
                _check_call(node["value"], [child["type"] for child in children])
                for child in children:
                    if child["type"] == "expref":
                        self.visit(child["children"][0], _FREE)
                    else:
                        _whole(self.visit(child, scope))
                return _FREE
            case "expref":
                raise BadExpression("`&` stands only before an argument of a function")
            case "literal":
                json.dumps(node["value"], ensure_ascii=False).encode()
                return _FREE
            case "key_val_pair":
                node["value"].encode()
                return self.visit(children[0], scope)
            case _:
                for child in children:
                    _whole(self.visit(child, scope))
                return _FREE

    def _field(self, name: str, scope: _Scope) -> _Scope:
        name.encode()
        if scope is _ROOT and name == "steps":
            return _STEPS
        if scope is _STEPS:
            return _Scope(f"`steps.{name}` as a whole", step=name)
        if scope is _ROOT:
            if name not in ("parameters", "item", "index"):
                raise _unreadable(f"`{name}`")
            self.reads_item = self.reads_item or name != "parameters"
        elif scope.step is not None:
            if name != "output":
                raise _unreadable(f"`steps.{scope.step}.{name}`")
            self.steps.add(scope.step)
        return _FREE


def _node(parsed: Any) -> Mapping[str, Any]:
    return parsed


def _whole(scope: _Scope) -> _Scope:
    """Takes the value as it is: only what is below a root can be."""
    if scope is not _FREE:
        raise _unreadable(scope.text)
    return scope


def _unreadable(what: str) -> BadExpression:
    return BadExpression(f"{what} cannot be read, only `parameters`, `steps.<id>.output`, `item` and `index`")


def _check_call(name: str, kinds: list[str]) -> None:
    if name not in Functions.FUNCTION_TABLE:
        raise BadExpression(f"there is no function {name}()")
    signature = Functions.FUNCTION_TABLE[name]["signature"]
    variadic = signature[-1].get("variadic", False)
    if len(kinds) < len(signature) or (len(kinds) > len(signature) and not variadic):
        least = "at least " if variadic else ""
        raise BadExpression(
            f"{name}() takes {least}{len(signature)} argument{'s' * (len(signature) > 1)}, not {len(kinds)}"
        )
    for place, kind in enumerate(kinds):
        takes_expression = "expref" in signature[min(place, len(signature) - 1)]["types"]
        if takes_expression != (kind == "expref"):
            must = "an expression (`&name`)" if takes_expression else "a value, not an expression,"
            raise BadExpression(f"{name}() takes {must} as argument {place + 1}")


def _syntax(error: exceptions.JMESPathError) -> str:
    match error:
        case exceptions.LexerError():
            what = f"{error.message[:1].lower()}{error.message[1:60]}"
        case exceptions.IncompleteExpressionError() | exceptions.ParseError(token_type="EOF"):
            return "ends too soon"
        case exceptions.ParseError():
            what = f"unexpected {str(error.token_value)[:40]!r}"
        case _:
            return "does not parse"
    return f"{what} at character {error.lex_position + 1}"
