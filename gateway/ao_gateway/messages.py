"""What clients say over the WebSocket, and what they are answered."""

import re
from typing import Any, Final

import msgspec

from ao_gateway import channels
from ao_gateway.encode import encode
from ao_gateway.errors import Refusal, malformed
from ao_gateway.frames import text_frame

MAX_ID: Final = 200


class Auth(msgspec.Struct, tag="auth", forbid_unknown_fields=True):
    """Who the client is."""

    token: str


class Selection(msgspec.Struct, forbid_unknown_fields=True):
    """A channel, and the ids that narrow it."""

    channel: str
    agent_id: str | None = None
    task_id: str | None = None
    workflow_id: str | None = None
    execution_id: str | None = None


class Subscribe(Selection, tag="subscribe"):
    """What the client wants to hear of, from behind `after` or from now on."""

    after: str | None = None


class Unsubscribe(Selection, tag="unsubscribe"):
    """What it does not want to hear of any more."""


class Ping(msgspec.Struct, tag="ping", forbid_unknown_fields=True):
    """Asks for a pong."""


Message = Auth | Subscribe | Unsubscribe | Ping

_QUOTED: Final = re.compile(r"Invalid (?:enum )?value '.*'(?= - at |$)", re.DOTALL)
_decoder: Final[msgspec.json.Decoder[Message]] = msgspec.json.Decoder(Message)


def read(text: str) -> Message:
    """The message in a frame. Refusal when it is none of those that a client may send."""
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError as error:
        # What it quotes may be a token in a wrong place.
        raise malformed(_QUOTED.sub("Invalid value", str(error))) from None
    except (msgspec.DecodeError, RecursionError):
        raise malformed("A frame must be one JSON object with a type") from None


def filter_of(message: Selection) -> channels.Filter:
    """What the message selects. Refusal when the channel is unknown or is not narrowed by such an id."""
    if message.channel not in channels.NAMES:
        raise malformed("channel: must be one of: " + ", ".join(channels.NAMES))
    ids: dict[str, str] = {name: value for name in channels.IDS if (value := getattr(message, name)) is not None}
    for name, value in ids.items():
        if name not in channels.NARROWED_BY.get(message.channel, ()):
            raise malformed(f"{name}: does not narrow {message.channel}")
        if not 0 < len(value) <= MAX_ID:
            raise malformed(f"{name}: must have 1 to {MAX_ID} characters")
    return channels.Filter(message.channel, **ids)


def authenticated() -> bytes:
    """The answer to a good `auth`."""
    return _frame({"type": "authenticated"})


def subscribed(chosen: channels.Filter, cursor: str) -> bytes:
    """The answer to `subscribe`: events behind the cursor follow."""
    return _frame({"type": "subscribed", "channel": chosen.channel, "filter": chosen.ids, "cursor": cursor})


def unsubscribed(chosen: channels.Filter) -> bytes:
    """The answer to `unsubscribe`."""
    return _frame({"type": "unsubscribed", "channel": chosen.channel, "filter": chosen.ids})


def pong() -> bytes:
    """The answer to `ping`."""
    return _frame({"type": "pong"})


def error(refusal: Refusal) -> bytes:
    """What was wrong with the last frame; it had no effect."""
    return _frame({"type": "error", "error": {"code": refusal.code, "message": refusal.message}})


def _frame(printed: dict[str, Any]) -> bytes:
    return text_frame(encode(printed))
