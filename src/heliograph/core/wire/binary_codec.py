"""Binary frames of serializer 2.0.0: kind 3 in, kind 4 out; protocol §2.2.

Layout of kind 3: ``03``, one length byte each for join_ref, ref, topic, user event and metadata,
one byte for the encoding (0 binary, anything else JSON), then those fields, then the payload to the
end. Kind 4 has neither join_ref nor ref. Other kinds exist in Phoenix; we accept and send none,
since the official JavaScript client decodes kind 4 only.
"""

from typing import Final

from heliograph.core.wire.messages import UserBroadcast, UserBroadcastPush
from heliograph.errors import LocalProtocolError, RemoteProtocolError
from heliograph.limits import REF_CHARACTERS_MAX

KIND_USER_BROADCAST_PUSH: Final = 3
KIND_USER_BROADCAST: Final = 4
_PUSH_HEADER_BYTES: Final = 7
_FIELD_BYTES_MAX: Final = 255


def decode_binary(frame: bytes) -> UserBroadcastPush:
    """Read one binary frame from a client.

    Raises:
        RemoteProtocolError: If it is not of kind 3, is cut short, or a field is not UTF-8.
    """
    if not frame or frame[0] != KIND_USER_BROADCAST_PUSH:
        message = "only binary frames of kind 3 (user broadcast push) are understood"
        raise RemoteProtocolError(message)
    if len(frame) < _PUSH_HEADER_BYTES:
        message = "the header of the binary frame is cut short"
        raise RemoteProtocolError(message)
    position = _PUSH_HEADER_BYTES
    fields: list[bytes] = []
    for length in frame[1:6]:
        fields.append(frame[position : position + length])
        position += length
    if position > len(frame):
        message = "the fields of the binary frame are cut short"
        raise RemoteProtocolError(message)
    join_ref, ref, topic, user_event, metadata = fields
    if max(len(join_ref), len(ref)) > REF_CHARACTERS_MAX:
        message = f"ref and join_ref must be at most {REF_CHARACTERS_MAX} long"
        raise RemoteProtocolError(message)
    try:
        return UserBroadcastPush(
            join_ref=join_ref.decode() or None,
            ref=ref.decode() or None,
            topic=topic.decode(),
            user_event=user_event.decode(),
            metadata=metadata,
            payload=frame[position:],
            is_json=frame[6] != 0,
        )
    except UnicodeDecodeError as error:
        message = "a field of the binary frame is not UTF-8"
        raise RemoteProtocolError(message) from error


def encode_user_broadcast(broadcast: UserBroadcast) -> bytes:
    """Write one frame of kind 4.

    Raises:
        LocalProtocolError: If topic, event or metadata is longer than 255 bytes: it does not fit;
            the caller sends a text frame instead or refuses the name.
    """
    topic = broadcast.topic.encode()
    user_event = broadcast.user_event.encode()
    for field in (topic, user_event, broadcast.metadata):
        if len(field) > _FIELD_BYTES_MAX:
            message = f"a field of a binary frame holds at most {_FIELD_BYTES_MAX} bytes"
            raise LocalProtocolError(message)
    header = bytes(
        (
            KIND_USER_BROADCAST,
            len(topic),
            len(user_event),
            len(broadcast.metadata),
            int(broadcast.is_json),
        )
    )
    return b"".join((header, topic, user_event, broadcast.metadata, broadcast.payload))
