"""The comments of the protos, in the words of HTTP."""

import json
import re
from importlib import resources
from typing import Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.rpc import code_pb2, status_pb2

from agent_orchestration import v1
from ao_gateway import errors, scalars

# As protos/generate.py names them: by full name, a value of an enum below its enum.
_TEXTS: Final[dict[str, str]] = json.loads((resources.files(v1) / "comments.json").read_text(encoding="utf-8"))
_CODE: Final = re.compile("|".join(rf"\b{name}\b" for name, number in code_pb2.Code.items() if number))


def of(thing: ServiceDescriptor | MethodDescriptor | Descriptor | FieldDescriptor) -> str:
    """What the protos say of it: paragraphs, with names in backticks. Empty when they say nothing."""
    return _of(thing.full_name)


def of_enum(enum: EnumDescriptor) -> str:
    """What the protos say of an enum, and of those of its words that need it."""
    texts = [_of(enum.full_name)]
    for word, number in scalars.words_of(enum).items():
        text = _of(f"{enum.full_name}.{enum.values_by_number[number].name}")
        if text:
            texts.append(f"`{word}`: {text}")
    return "\n\n".join(text for text in texts if text)


def _of(name: str) -> str:
    return _CODE.sub(_http_status, _TEXTS.get(name, ""))


def _http_status(code: re.Match[str]) -> str:
    status = status_pb2.Status(code=code_pb2.Code.Value(code[0]))
    return str(errors.from_status(status).status)
