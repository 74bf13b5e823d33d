"""The reference as one HTML page, made of the OpenAPI document: no script, nothing fetched from anywhere."""

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html import escape
from importlib import resources
from typing import Any, Final

from ao_gateway.reference_types import Schema, in_words, items_in_words, name_of, without_null

# The documented place of a gateway on the reader's own machine.
ORIGIN: Final = "http://localhost:3000"

_STYLE: Final = (resources.files("ao_gateway") / "reference.css").read_text(encoding="utf-8")
_STYLE_HASH: Final = b64encode(sha256(_STYLE.encode()).digest()).decode()
SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# A field shows up to so many words of an enum; the rest is behind the link.
MAX_WORDS: Final = 6
# Shapes that are shown where they are used.
_SHOWN_IN_PLACE: Final = re.compile(".+(Request|Input|Response)")


def page(document: dict[str, Any]) -> str:
    """The whole page; its curl lines go to ORIGIN."""
    return "".join(_Page(document).html())


class _Page:
    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._schemas: dict[str, Schema] = document["components"]["schemas"]
        self._operations = [
            (tag["name"], tag.get("description", ""), list(self._tagged(tag["name"]))) for tag in document["tags"]
        ]
        # Shapes are named in code alone: `Task` is one, a task is not.
        names = [operation["operationId"] for _, _, each in self._operations for _, _, operation in each]
        shapes = [name for name in self._schemas if not _SHOWN_IN_PLACE.fullmatch(name)]
        self._names = re.compile(rf"\b({'|'.join(names)})\b|(?<=<code>)({'|'.join(shapes)})(?=</code>)")

    def html(self) -> Iterator[str]:
        info = self._document["info"]
        yield (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
            f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>"
        )
        yield f"<header><h1>{escape(info['title'])} API</h1>"
        yield f'<p class="meta">Version {escape(info["version"])}'
        yield ' · <a href="/v1/openapi.json">OpenAPI 3.1</a></p></header>'
        yield from self._index()
        yield f'<main><section class="intro">{self._prose(info["description"])}</section>'
        for tag, text, operations in self._operations:
            yield f'<section id="{_anchor(tag)}"><h2>{escape(tag)}</h2>{self._prose(text)}'
            for path, method, operation in operations:
                yield from self._operation(path, method, operation)
            yield "</section>"
        yield from self._errors()
        yield from self._shapes()
        yield "</main></body></html>"

    def _tagged(self, tag: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        for path, methods in self._document["paths"].items():
            for method, operation in methods.items():
                if tag in operation["tags"]:
                    yield path, method, operation

    def _index(self) -> Iterator[str]:
        yield '<nav aria-label="Index">'
        for tag, _, operations in self._operations:
            yield f'<h2><a href="#{_anchor(tag)}">{escape(tag)}</a></h2><ul>'
            for path, method, operation in operations:
                yield f'<li><a href="#{operation["operationId"]}" title="{escape(operation["summary"])}">'
                yield f"{_badge(method)} {_path(path)}</a></li>"
            yield "</ul>"
        yield '<h2><a href="#errors">Errors</a></h2><h2><a href="#shapes">Shapes</a></h2></nav>'

    def _operation(self, path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
        name = operation["operationId"]
        yield f'<article id="{name}"><h3><a href="#{name}">{escape(operation["summary"])}</a></h3>'
        yield f'<p class="route">{_badge(method)} {_path(path)}</p>{self._prose(operation["description"])}'
        if operation.get("security") == []:
            yield "<p>No credential is needed.</p>"
        parameters = operation.get("parameters", [])
        if parameters:
            yield "<h4>Parameters</h4>" + _fields(self._parameter(each) for each in parameters)
        body = operation.get("requestBody")
        if body is not None:
            optional = "" if body.get("required") else ' <span class="note">optional</span>'
            schema = body["content"]["application/json"]["schema"]
            yield f"<h4>Body{optional}</h4>{self._properties(schema, is_request=True)}"
        yield "<h4>Answers</h4>" + "".join(self._answers(operation["responses"]))
        yield f'<h4>Try it</h4><pre tabindex="0"><code>{escape(_curl(path, method, operation))}</code></pre></article>'

    def _parameter(self, parameter: dict[str, Any]) -> tuple[str, str, str]:
        required = parameter.get("required", False) and parameter["in"] != "path"
        notes = _note(parameter["in"]) + (_required() if required else "")
        schema: Schema = parameter["schema"]
        return parameter["name"], self._type(schema) + notes, self._prose(parameter.get("description", ""))

    def _answers(self, responses: dict[str, Any]) -> Iterator[str]:
        errors: list[str] = []
        for status, response in responses.items():
            if "$ref" in response:
                errors.append(f'<a href="#error-{status}">{status}</a>')
                continue
            yield f'<p class="answer"><b>{status}</b> {self._inline(response["description"])}</p>'
            names = [name for name in response["headers"] if name != "X-Request-Id"]
            for name in names:
                yield f'<p class="answer">With the header <code>{name}</code>: '
                yield f"{self._inline(response['headers'][name]['description'])}</p>"
            schema = response["content"].get("application/json", {}).get("schema")
            if schema is not None and status < "300":
                yield self._properties(schema, is_request=False)
        if errors:
            yield f'<p class="answer">Errors: {" ".join(errors)}</p>'

    def _properties(self, schema: Schema, is_request: bool) -> str:
        """The fields of an object: in a request those that must be there are marked, in an answer the others."""
        name = name_of(schema)
        found = schema if name is None else self._schemas[name]
        rows: list[tuple[str, str, str]] = []
        for field, each in found["properties"].items():
            is_required = field in found.get("required", [])
            note = _required() if is_request and is_required else ""
            if not is_request and not is_required:
                note = _note("may be absent")
            text = self._prose(each.get("description", ""))
            rows.append((field, self._type(each) + note, text + self._within(each, is_request)))
        return _fields(iter(rows))

    def _within(self, schema: Schema, is_request: bool) -> str:
        """The fields of what is shown in place."""
        plain = without_null(schema)
        inner = plain["items"] if plain.get("type") == "array" else plain
        name = name_of(inner)
        if (name is None and "properties" not in inner) or (name is not None and not _SHOWN_IN_PLACE.fullmatch(name)):
            return ""
        return f"<details><summary>Its fields</summary>{self._properties(inner, is_request)}</details>"

    def _type(self, schema: Schema) -> str:
        plain = without_null(schema)
        name = name_of(plain)
        if name is not None:
            return self._named(name)
        if "anyOf" in plain:
            return " or ".join(self._type(each) for each in plain["anyOf"])
        if "const" in plain:
            return f"<code>{escape(json.dumps(plain['const']))}</code>"
        if plain.get("type") == "array":
            return f"{_soft('array of')} {self._type(plain['items'])}{_soft(items_in_words(plain))}"
        return _soft(in_words(plain))

    def _named(self, name: str) -> str:
        if _SHOWN_IN_PLACE.fullmatch(name):
            return _soft("object")
        words = self._schemas[name].get("enum", [])
        shown = "".join(f" <code>{escape(word)}</code>" for word in words) if len(words) <= MAX_WORDS else ""
        return f'<a href="#{name}">{name}</a>{shown}'

    def _errors(self) -> Iterator[str]:
        yield '<section id="errors"><h2>Errors</h2><p>Every one has the shape <a href="#Error">Error</a>.</p>'
        statuses: dict[str, str] = {}
        for _, _, operations in self._operations:
            for _, _, operation in operations:
                for status, response in operation["responses"].items():
                    if "$ref" in response:
                        statuses[status] = response["$ref"].rsplit("/", 1)[1]
        yield '<dl class="fields">'
        for status, name in sorted(statuses.items()):
            text = self._document["components"]["responses"][name]["description"]
            yield f'<div id="error-{status}"><dt><b>{status}</b></dt><dd>{self._prose(text)}</dd></div>'
        yield "</dl></section>"

    def _shapes(self) -> Iterator[str]:
        yield '<section id="shapes"><h2>Shapes</h2>'
        for name, schema in self._schemas.items():
            if _SHOWN_IN_PLACE.fullmatch(name):
                continue
            yield f'<article id="{name}"><h3><a href="#{name}">{name}</a></h3>'
            if "enum" in schema:
                yield "<p>" + " ".join(f"<code>{escape(word)}</code>" for word in schema["enum"]) + "</p>"
            yield self._prose(schema.get("description", ""))
            if schema.get("type") == "array":
                yield f"<p>{self._type(schema)}</p>"
            elif "properties" in schema:
                yield self._properties(schema, is_request=False)
            yield "</article>"
        yield "</section>"

    def _prose(self, text: str) -> str:
        return "".join(f"<p>{self._inline(paragraph)}</p>" for paragraph in text.split("\n\n") if paragraph)

    def _inline(self, text: str) -> str:
        """Text with backticks as code, and with links where it names an operation or a shape."""
        html = re.sub("`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
        return self._names.sub(lambda name: f'<a href="#{name[0]}">{name[0]}</a>', html)


def _fields(rows: Iterator[tuple[str, str, str]]) -> str:
    """Rows of name, type and description; the last two are HTML."""
    shown = (
        f"<div><dt><code>{escape(name)}</code> {kind}</dt>" + (f"<dd>{text}</dd>" if text else "") + "</div>"
        for name, kind, text in rows
    )
    return f'<dl class="fields">{"".join(shown)}</dl>'


def _curl(path: str, method: str, operation: dict[str, Any]) -> str:
    filled = re.sub(r"\{(\w+)\}", lambda name: name[1].upper(), path)
    lines = [f"curl {ORIGIN}{filled}"]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
    if "text/event-stream" in operation["responses"].get("200", {}).get("content", {}):
        lines[0] = lines[0].replace("curl ", "curl -N ")
    if method != "get" and (body is None or method != "post"):
        lines[0] = lines[0].replace("curl ", f"curl -X {method.upper()} ")
    if "security" not in operation:
        lines.append('-H "Authorization: Bearer $AGENT_ORCHESTRATION_API_KEY"')
    if body is not None:
        lines += ['-H "Content-Type: application/json"', f"-d '{json.dumps(body, indent=2)}'"]
    return " \\\n".join(lines).replace("\n", "\n  ")


def _badge(method: str) -> str:
    return f'<span class="method {method}">{method.upper()}</span>'


def _path(path: str) -> str:
    # Long paths break between their parts.
    return f'<code class="path">{escape(path).replace("/", "<wbr>/")}</code>'


def _note(text: str) -> str:
    return f' <span class="note">{text}</span>'


def _required() -> str:
    return ' <span class="required">required</span>'


def _soft(text: str) -> str:
    return f'<span class="type">{escape(text)}</span>' if text else ""


def _anchor(name: str) -> str:
    return name.lower()
