"""What is fuzzed: every decoder of bytes that come from a peer, with its own error and seeds.

The invariant is the same for all: any bytes give a result or the error that the decoder documents,
never anything else. A target is a function of bytes; what it lets through is a finding. It returns
whether anything was decoded.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from fixtures.pgoutput import (
    encode_begin,
    encode_commit,
    encode_delete,
    encode_insert,
    encode_logical_message,
    encode_relation,
    encode_truncate,
    encode_update,
    make_assembler,
    make_relation,
)
from heliograph.core.matching.filter_parser import parse_filter
from heliograph.core.replication.frames import decode_frame, decode_standby_status
from heliograph.core.replication.oversize import OversizeTransaction
from heliograph.core.replication.pgoutput import decode_message
from heliograph.core.replication.stream import ReplicationStream
from heliograph.core.tokens.bounded_json import decode_object
from heliograph.core.wire.binary_codec import decode_binary
from heliograph.core.wire.json_codec import decode_text
from heliograph.core.wire.message_assembler import MessageAssembler
from heliograph.core.wire.messages import SerializerVersion
from heliograph.errors import (
    FrameError,
    LimitExceededError,
    RemoteProtocolError,
    SubscriptionRefusedError,
    TokenError,
)

NOTES = make_relation(1)

_MESSAGES = (
    encode_relation(NOTES),
    encode_begin(0x100),
    encode_insert(1, ["1", "a"]),
    encode_update(1, ["1", None], old=["1", "a"]),
    encode_delete(1, ["1", "a"]),
    encode_truncate([1]),
    encode_logical_message("p", b"content"),
    encode_commit(0x100, 0x130),
)


def is_decoded(error: type[Exception], decode: Callable[..., object], *arguments: object) -> bool:
    """Tell whether a decoder took it; it may refuse by its own error only."""
    with contextlib.suppress(error):
        decode(*arguments)
        return True
    return False


def pgoutput(data: bytes) -> bool:
    """One message."""
    return is_decoded(RemoteProtocolError, decode_message, data)


def frames(data: bytes) -> bool:
    """One frame of the replication protocol, in both directions."""
    decoders = (decode_frame, decode_standby_status)
    return sum(is_decoded(RemoteProtocolError, decode, data) for decode in decoders) > 0


def stream(data: bytes) -> bool:
    """A whole connection: pieces of a length byte and a message, and every row they lead to."""
    assembler = make_assembler(memory_bytes=200, message_bytes=50)
    reader = ReplicationStream(assembler)
    position, has_completed = 0, False
    with contextlib.suppress(RemoteProtocolError, LimitExceededError):
        while position < len(data):
            end = position + 1 + data[position]
            completed = reader.receive_message(data[position + 1 : end])
            position = end
            if completed is not None:
                has_completed = True
                reader.hand_on()
                _read_rows(completed)
    return has_completed


def _read_rows(completed) -> None:
    with contextlib.suppress(RemoteProtocolError, LimitExceededError):
        if isinstance(completed, OversizeTransaction):
            with contextlib.closing(completed):
                for _ in completed.segments({1: (0,), 2: None}):
                    pass
        else:
            completed.decode({1: (0,), 2: None})


def client_text(data: bytes) -> bool:
    """One text frame of a client, in both serializers."""
    text = data.decode(errors="surrogateescape")
    return (
        sum(
            is_decoded(RemoteProtocolError, decode_text, text, version)
            for version in SerializerVersion
        )
        > 0
    )


def client_binary(data: bytes) -> bool:
    """One binary frame of a client."""
    return is_decoded(RemoteProtocolError, decode_binary, data)


def websocket_messages(data: bytes) -> bool:
    """Data frames: a byte of flags and opcode, a length byte, the payload."""
    assembler = MessageAssembler(100)
    position, has_completed = 0, False
    with contextlib.suppress(FrameError):
        while position + 1 < len(data):
            flags, size = data[position], data[position + 1]
            message = assembler.receive_frame(
                flags & 3,
                data[position + 2 : position + 2 + size],
                is_final=bool(flags & 4),
                has_reserved_bits=bool(flags & 8),
            )
            has_completed = has_completed or message is not None
            position += 2 + size
    return has_completed


def subscription_filter(data: bytes) -> bool:
    """The text of a filter."""
    text = data.decode(errors="surrogateescape")
    return is_decoded(SubscriptionRefusedError, parse_filter, text)


def token_json(data: bytes) -> bool:
    """Header or claims of a token."""
    return is_decoded(TokenError, decode_object, data)


@dataclass(frozen=True)
class Target:
    """One decoder, and inputs to begin with."""

    run: Callable[[bytes], bool]
    seeds: tuple[bytes, ...]


def _pieces(*messages: bytes) -> bytes:
    return b"".join(bytes((len(message),)) + message for message in messages)


TARGETS = {
    "pgoutput": Target(pgoutput, _MESSAGES),
    "frames": Target(
        frames, (b"w" + bytes(24) + b"B", b"k" + bytes(17), b"r" + bytes(33), b"w" + bytes(24))
    ),
    "stream": Target(
        stream,
        (
            _pieces(*_MESSAGES),
            _pieces(*_MESSAGES[:2], *[encode_insert(1, [str(n), "a" * 20]) for n in range(9)])
            + _pieces(_MESSAGES[3], _MESSAGES[-1]),
        ),
    ),
    "client_text": Target(
        client_text,
        (
            b'["1","2","realtime:t","phx_join",{"config":{"postgres_changes":[]}}]',
            b'{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}',
            b'[null,"3","phoenix","heartbeat",{"n":[1e999,12345678901234567890]}]',
        ),
    ),
    "client_binary": Target(
        client_binary, (b"\3\1\1\4\3\2\1" + b"12abcdend{}" + b"payload", b"\3\0\0\0\0\0\0")
    ),
    "websocket_messages": Target(websocket_messages, (b"\5\2ab\1\1c\0\1d\4\1e", b"\x0d\0")),
    "subscription_filter": Target(
        subscription_filter,
        (b"id=eq.1", b'a=in.(1,"2",3),b=not.is.null', b"c=like.%x%,d=match.^a"),
    ),
    "token_json": Target(
        token_json,
        (b'{"alg":"HS256","typ":"JWT"}', b'{"sub":"x","exp":1e3,"a":[{"b":[null,true]}]}'),
    ),
}
