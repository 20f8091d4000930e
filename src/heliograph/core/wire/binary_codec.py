"""Binary frames of serializer 2.0.0: kind 3, from the client; protocol §2.2.

Layout of kind 3: ``03``, one length byte each for join_ref, ref, topic, user event and metadata,
one byte for the encoding (0 binary, anything else JSON), then those fields, then the payload to the
end. Other kinds exist in Phoenix; none is accepted.
"""

from typing import Final

from heliograph.core.wire.messages import UserBroadcastPush
from heliograph.errors import RemoteProtocolError
from heliograph.limits import REF_CHARACTERS_MAX

KIND_USER_BROADCAST_PUSH: Final = 3
_PUSH_HEADER_BYTES: Final = 7


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
