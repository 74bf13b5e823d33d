"""What free JSON must be: the text of one object, or of any value, that every JSON reader gives back unchanged.

Payloads, results and configurations travel as the text that was sent. The text is checked where it enters, so that
nothing is stored that an agent, a database or a browser could not read.
"""

import re
from collections.abc import Callable
from itertools import accumulate
from typing import Final

import msgspec

MAX_DEPTH: Final = 100
MAX_INTEGER_DIGITS: Final = 4300

_skip: Final = msgspec.json.Decoder(msgspec.Raw)
_read: Final = msgspec.json.Decoder()
_WHITESPACE: Final = " \t\r\n"
# Only an exponent or three hundred digits in a row can make a number too large. Text inside strings may look like them
# too: that costs time, not truth. Both are looked for among bytes of which every digit and plus reads 0.
_SHAPE: Final = bytes.maketrans(b"123456789+E", b"0000000000e")
_EXPONENT: Final = b"0e0"
_MANY_DIGITS: Final = b"0" * 300
_LONGEST_NEGATIVE: Final = re.compile(rf"-(?=[0-9]{{{MAX_INTEGER_DIGITS}}}(?![0-9]))")
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_step: Final[Callable[[int], int]] = [1 if byte in b"[{" else -1 for byte in range(256)].__getitem__


def check(text: str, *, is_any: bool = False) -> str | None:
    """Says what is wrong with the text as free JSON, in words that follow the field's name; None when it is good.

    Refused: anything but one object unless it `is_any` value, nesting over 100 levels (the object itself is the first),
    lone surrogates, NaN and Infinity, integers over 4,300 digits, fractions and exponents beyond the range of a double.
    """
    # What most functions return.
    if text == "{}":
        return None
    try:
        encoded = text.encode()
        _skip.decode(encoded)
    except UnicodeEncodeError:
        return "must not contain lone surrogates"
    except RecursionError:
        return _TOO_DEEP
    except msgspec.DecodeError as error:
        return syntax_reason(error)
    return _wrong(text, encoded, is_any)


def check_well_formed(text: str, *, is_any: bool = False) -> str | None:
    """As `check`, for text that is known to be well-formed JSON: a slice of a document that was read already."""
    return _wrong(text, text.encode(), is_any)


def _wrong(text: str, encoded: bytes, is_any: bool) -> str | None:
    if not is_any and text[:1] != "{" and text.lstrip(_WHITESPACE)[:1] != "{":
        return "must be a JSON object"
    # Every level takes a bracket on either side.
    if len(text) > 2 * MAX_DEPTH and text.count("{") + text.count("[") > MAX_DEPTH and _depth(encoded) > MAX_DEPTH:
        return _TOO_DEEP
    shape = encoded.translate(_SHAPE)
    # In short texts `in` takes twice as long.
    if shape.find(_EXPONENT) >= 0 or (len(shape) > len(_MANY_DIGITS) and shape.find(_MANY_DIGITS) >= 0):
        return _number_reason(text)
    return None


def syntax_reason(error: msgspec.DecodeError) -> str:
    """Says in our words why a decoder refused the text."""
    said = str(error)
    # A high surrogate at the end of a string reads to msgspec as a document that stops in the middle of a pair.
    if "surrogate" in said:
        return "must not contain lone surrogates"
    if "truncated" in said:
        return "must be complete JSON without lone surrogates"
    return "must be well-formed JSON: " + said.removeprefix("JSON is malformed: ")


_TOO_DEEP: Final = f"must not be nested deeper than {MAX_DEPTH} levels"


def _depth(encoded: bytes) -> int:
    brackets = _STRING.sub(b"", encoded).translate(None, delete=_NOT_BRACKETS)
    return max(accumulate(map(_step, brackets)), default=0)


def _number_reason(text: str) -> str | None:
    try:
        # The decoder counts a minus sign as a digit.
        _read.decode(_LONGEST_NEGATIVE.sub("", text))
    except msgspec.ValidationError as error:
        if "Integer" in str(error):
            return f"must not contain integers of more than {MAX_INTEGER_DIGITS} digits"
        return "must not contain numbers beyond the range of a double"
    return None
