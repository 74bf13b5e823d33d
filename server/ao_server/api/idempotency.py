"""The idempotency key of a creating call, and what it is bound to."""

import hashlib
from typing import Any

from google.protobuf.message import Message

from ao_server.api import calls
from ao_server.engine.idempotency import Idempotency


def of(request: Message) -> Idempotency | None:
    """What the call's key stands for, None without one: the type of the request and all that it says."""
    if not request.HasField("idempotency_key"):
        return None
    keyed: Any = request
    plain: Any = type(request)()
    plain.CopyFrom(request)
    plain.ClearField("idempotency_key")
    said = request.DESCRIPTOR.full_name.encode() + b"\0" + plain.SerializeToString(deterministic=True)
    return Idempotency(calls.current().project_id, keyed.idempotency_key, hashlib.sha256(said).hexdigest())
