"""Messages of any type with any values in their fields, those included that no good program would send."""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from agent_orchestration.v1 import options_pb2, runners_pb2
from ao_gateway.bindings import message_class
from tests.fuzz.json_texts import GOOD_OBJECTS, ODD_BYTES, ODD_VALUES

# Ids that a test gives a meaning.
MINE, THEIRS, NOBODYS = "task_mine", "task_theirs", "task_none"
TEXTS: Final = st.one_of(
    st.sampled_from([MINE, MINE, MINE, THEIRS, NOBODYS]),
    st.sampled_from([*GOOD_OBJECTS, "", "\0", "*", "work", "x" * 101, "x" * 201]),
    st.sampled_from(["é" * 100, "\U0001f600" * 3_000, "a\0b" * 700]),
    st.sampled_from(ODD_VALUES),
    st.text(max_size=8),
)
_LARGE: Final = [2**31 - 1, -(2**31), 2**31 - 2]
_LARGEST: Final = [*_LARGE, 2**63 - 1, -(2**63), 315_576_000_000, 315_576_000_001, 9_223_372_036_855]
_VALUES: Final[dict[int, st.SearchStrategy[Any]]] = {
    FieldDescriptor.TYPE_STRING: TEXTS,
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_INT32: st.integers(0, 3) | st.sampled_from([-1, *_LARGE]),
    FieldDescriptor.TYPE_INT64: st.integers(0, 3) | st.sampled_from([-1, *_LARGEST]),
    FieldDescriptor.TYPE_ENUM: st.integers(0, 4) | st.sampled_from([-1, 99]),
    FieldDescriptor.TYPE_DOUBLE: st.sampled_from([0.0, -0.0, 5e-324, 50.0, 100.0, 100.1, 1e308, -1e308]) | st.floats(),
}


def messages(descriptor: Descriptor, only: str | None = None) -> st.SearchStrategy[Message]:
    """Messages of this type: each field given or not, of a oneof one, or `only` this."""
    groups: list[st.SearchStrategy[dict[str, Any]]] = []
    for oneof in descriptor.oneofs:
        if len(oneof.fields) > 1:
            chosen = [each for each in oneof.fields if only in (None, each.name)]
            groups.append(st.one_of([st.fixed_dictionaries({each.name: _values(each)}) for each in chosen]))
    for field in descriptor.fields:
        if field.containing_oneof is None or len(field.containing_oneof.fields) == 1:
            required = field.GetOptions().Extensions[options_pb2.rules].required
            values = {field.name: _values(field)}
            groups.append(st.fixed_dictionaries(values if required else {}, optional={} if required else values))
    make = message_class(descriptor)

    @st.composite
    def built(draw: Callable[[Any], Any]) -> Message:
        fields: dict[str, Any] = {}
        for group in groups:
            fields |= draw(group)
        return make(**fields)

    return built()


@st.composite
def bent(draw: Callable[[Any], Any], whole: st.SearchStrategy[Message]) -> bytes:
    """The bytes of a message, a few of them changed."""
    sent: bytes = draw(whole).SerializeToString()
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(sent)))
        sent = sent[:begin] + draw(ODD_BYTES) + sent[begin + draw(st.integers(0, 2)) :]
    return sent


def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    one = _VALUES[field.type] if field.message_type is None else messages(field.message_type)
    if field.message_type is runners_pb2.Attempt.DESCRIPTOR:
        # Mostly one that counts, so that the rest of the message comes to be looked at.
        current = st.builds(lambda: runners_pb2.Attempt(task_id=MINE, number=1))
        one = st.one_of(current, current, current, one)
    return st.lists(one, max_size=3) if field.is_repeated else one
