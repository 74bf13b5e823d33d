"""Text that can be stored and shown, whatever agent code hands over."""

from typing import Final

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


def storable(text: str) -> str:
    """The text without U+0000, which a database may refuse, and without lone surrogates, which UTF-8 cannot hold."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode(errors="backslashreplace").decode().replace("\0", REPLACEMENT)


def cut(text: str, limit: int) -> str:
    """The text, storable, in at most `limit` bytes of UTF-8; where something is missing, its end says so."""
    if len(text) <= limit:
        encoded = storable(text).encode()
        if len(encoded) <= limit:
            return encoded.decode()
    mark = f"... [cut, {len(text):,} characters in all]"
    kept = storable(text[:limit]).encode()[: limit - len(mark)]
    return kept.decode(errors="ignore") + mark


def shown(value: object) -> str:
    """`str(value)`, also for objects whose own text cannot be made."""
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__}, whose text cannot be made: {type(error).__name__}>"


def cut_bytes(data: bytes, size: int, limit: int) -> str:
    """The beginning of a text of `size` bytes, storable, in at most `limit` bytes of UTF-8, and what is cut."""
    if size <= limit:
        text = storable(data.decode(errors="replace"))
        if len(text.encode()) <= limit:
            return text
    mark = f"... [cut, {size:,} bytes in all]"
    kept = storable(data[:limit].decode(errors="replace")).encode()[: limit - len(mark)]
    return kept.decode(errors="ignore") + mark
