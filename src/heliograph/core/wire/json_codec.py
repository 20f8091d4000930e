r"""Text frames of serializers 1.0.0 (object) and 2.0.0 (array); protocol §2.1.

Decoding never raises anything but `RemoteProtocolError`, whatever the text is, and costs time in
proportion to its length only. Two kinds of fault are told apart: a text that is not a message at
all (dropped and counted, the connection stays), and a message that can be answered but breaks a
bound of S30: nesting, number of keys, integers of more than 19 digits, ``\u0000``, and what has no
value at all (``1e999``, half a surrogate pair). The common case is cheap: five scans in C say that
no bound can be broken. Where one may be, strings are cut out and the rest is looked at, before
anything is decoded.
"""

import re
from typing import Final, cast

import msgspec

from heliograph.core.wire.messages import Message, RefusedMessage, SerializerVersion
from heliograph.errors import RemoteProtocolError
from heliograph.limits import JSON_DEPTH_MAX, JSON_KEYS_MAX, REF_CHARACTERS_MAX

_V2_FIELDS: Final = 5
#: Digits of the longest integer that surely fits 64 bit.
_INTEGER_DIGITS_MAX: Final = 19
#: Maps every digit to 0, so that a run of digits is found by a plain search.
_DIGITS_AS_ZERO: Final = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_RUN: Final = b"0" * (_INTEGER_DIGITS_MAX + 1)
#: A whole JSON string. Unrolled, and closed by the end of the text too, so that it never goes back.
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.?[^"\\]*)*(?:"|\Z)', re.DOTALL)
_LONG_DIGITS: Final = re.compile(rb"[0-9]{20,}")
#: What makes a run of digits the fraction, the exponent or the integral part of a float.
_FLOAT_BEFORE: Final = re.compile(rb"[.eE]$|[eE][+-]$")
_FLOAT_AFTER: Final = (b".", b"e", b"E")
_BRACKETS: Final = re.compile(rb"[\[\]{}]")
#: A bracket outside strings, and all that lies before it; possessive, so that it never goes back.
_NEXT_BRACKET: Final = re.compile(
    rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z))*+([\[\]{}])', re.DOTALL
)
#: The escape of half a pair without its other half; no character, and not allowed in UTF-8.
_LONE_SURROGATE: Final = re.compile(
    rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F].."
)
#: The escape of NUL: an odd number of backslashes before ``u0000``.
_ESCAPED_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

_UNREADABLE: Final = (
    "the message holds what can not be read: a number out of range, or half a surrogate pair"
)


class _EnvelopeV1(msgspec.Struct):
    """A message of serializer 1.0.0 whose payload is not looked at."""

    topic: object
    event: object
    payload: msgspec.Raw
    ref: object
    join_ref: object = None


_envelope_v1: Final = msgspec.json.Decoder(_EnvelopeV1)
_envelope_v2: Final = msgspec.json.Decoder(tuple[object, object, object, object, msgspec.Raw])


def decode_text(text: str, version: SerializerVersion) -> Message | RefusedMessage:
    """Read one text frame.

    Returns:
        The message, or a `RefusedMessage` if only its content breaks a bound.

    Raises:
        RemoteProtocolError: If it is not JSON, or not the shape that the serializer asks for.
    """
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        message = "the frame is not UTF-8"
        raise RemoteProtocolError(message) from error
    violation = _broken_bound(encoded)
    if violation is not None:
        return _refused(encoded, version, violation)
    try:
        document: object = msgspec.json.decode(encoded)
    except msgspec.DecodeError:
        # JSON by its grammar, perhaps, with what nobody can hold: `_refused` looks closer.
        return _refused(_LONE_SURROGATE.sub(rb"\\ufffd", encoded), version, _UNREADABLE)
    return _from_v1(document) if version is SerializerVersion.V1 else _from_v2(document)


def encode_text(message: Message, version: SerializerVersion) -> bytes:
    """Write one text frame; serializer 1.0.0 leaves the join_ref out, as the reference does."""
    if version is SerializerVersion.V1:
        return msgspec.json.encode(
            {
                "event": message.event,
                "payload": message.payload,
                "ref": message.ref,
                "topic": message.topic,
            }
        )
    return msgspec.json.encode(
        [message.join_ref, message.ref, message.topic, message.event, message.payload]
    )


def _from_v1(document: object) -> Message:
    """Take the fields of an object; ``join_ref`` may be absent, the others not."""
    if not isinstance(document, dict):
        message = "serializer 1.0.0 expects an object"
        raise RemoteProtocolError(message)
    fields = cast("dict[str, object]", document)
    for name in ("topic", "event", "payload", "ref"):
        if name not in fields:
            message = f"the message has no {name!r}"
            raise RemoteProtocolError(message)
    return _message(
        (fields.get("join_ref"), fields["ref"], fields["topic"], fields["event"]),
        fields["payload"],
    )


def _from_v2(document: object) -> Message:
    """Take the fields of an array; elements after the fifth are ignored."""
    if not isinstance(document, list):
        message = "serializer 2.0.0 expects an array"
        raise RemoteProtocolError(message)
    fields = cast("list[object]", document)
    if len(fields) < _V2_FIELDS:
        message = f"serializer 2.0.0 expects five elements, got {len(fields)}"
        raise RemoteProtocolError(message)
    return _message((fields[0], fields[1], fields[2], fields[3]), fields[4])


def _message(envelope: tuple[object, object, object, object], payload: object) -> Message:
    """Check the types of the envelope; the payload may be any JSON value."""
    join_ref, ref, topic, event = envelope
    if not isinstance(topic, str) or not isinstance(event, str):
        message = "topic and event must be strings"
        raise RemoteProtocolError(message)
    return Message(_reference(join_ref), _reference(ref), topic, event, payload)


def _reference(value: object) -> str | None:
    """Check a ref or join_ref: a short string, or null."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > REF_CHARACTERS_MAX:
        message = f"ref and join_ref must be null or strings of at most {REF_CHARACTERS_MAX}"
        raise RemoteProtocolError(message)
    return value


def _broken_bound(text: bytes) -> str | None:
    """Name the first bound of S30 that the text breaks; None if it breaks none."""
    if (
        text.count(b"[") + text.count(b"{") <= JSON_DEPTH_MAX
        and text.count(b":") <= JSON_KEYS_MAX
        and b"\\u0000" not in text
        and _LONG_RUN not in text.translate(_DIGITS_AS_ZERO)
    ):
        return None
    if b"\\u0000" in text and _ESCAPED_NUL.search(text) is not None:
        return "\\u0000 is not allowed: PostgreSQL can not store it"
    skeleton = _STRING.sub(b"", text)
    if skeleton.count(b":") > JSON_KEYS_MAX:
        return f"a message may have at most {JSON_KEYS_MAX} keys"
    return _broken_nesting(skeleton) or _broken_integer(skeleton)


def _broken_nesting(skeleton: bytes) -> str | None:
    """Check the number and the depth of arrays and objects in a text without strings."""
    if skeleton.count(b"[") + skeleton.count(b"{") > JSON_KEYS_MAX:
        return f"a message may have at most {JSON_KEYS_MAX} arrays and objects"
    depth = 0
    for sign in _BRACKETS.findall(skeleton):
        depth += 1 if sign in b"[{" else -1
        if depth > JSON_DEPTH_MAX:
            return f"a message may be nested at most {JSON_DEPTH_MAX} deep"
    return None


def _broken_integer(skeleton: bytes) -> str | None:
    """Check the length of every integer of a text without strings."""
    if _LONG_RUN not in skeleton.translate(_DIGITS_AS_ZERO):
        return None
    for found in _LONG_DIGITS.finditer(skeleton):
        before = skeleton[max(0, found.start() - 2) : found.start()]
        is_float = skeleton.startswith(_FLOAT_AFTER, found.end()) or _FLOAT_BEFORE.search(before)
        if not is_float:
            return f"an integer may have at most {_INTEGER_DIGITS_MAX} digits"
    return None


def _refused(text: bytes, version: SerializerVersion, violation: str) -> RefusedMessage:
    """Read the envelope alone, so that its sender can be told."""
    try:
        message = _read_envelope(text, version)
    except RecursionError:
        message = _read_envelope(_shallow(text), version)
    return RefusedMessage(message.join_ref, message.ref, message.topic, violation)


def _read_envelope(text: bytes, version: SerializerVersion) -> Message:
    try:
        if version is SerializerVersion.V1:
            v1 = _envelope_v1.decode(text)
            return _message((v1.join_ref, v1.ref, v1.topic, v1.event), None)
        join_ref, ref, topic, event, _ = _envelope_v2.decode(text)
        return _message((join_ref, ref, topic, event), None)
    except msgspec.DecodeError as error:
        message = "the frame is not JSON, or not of the shape of its serializer"
        raise RemoteProtocolError(message) from error


def _shallow(text: bytes) -> bytes:
    """Cut out what lies deeper than a message may be nested; its envelope does not.

    Raises:
        RemoteProtocolError: If there are too many brackets to look at each.
    """
    if text.count(b"[") + text.count(b"{") > JSON_KEYS_MAX:
        message = "the frame is nested too deeply"
        raise RemoteProtocolError(message)
    kept: list[bytes] = []
    depth = begin = 0
    for found in _NEXT_BRACKET.finditer(text):
        depth += 1 if found[1] in b"[{" else -1
        if depth == JSON_DEPTH_MAX + 1 and found[1] in b"[{":
            kept.append(text[begin : found.start(1)])
        elif depth == JSON_DEPTH_MAX and found[1] in b"]}":
            kept.append(b"0")
            begin = found.end()
    return b"".join(kept) + text[begin:] if depth <= JSON_DEPTH_MAX else b""
