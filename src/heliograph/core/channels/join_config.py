"""Reads the payload of a phx_join (protocol §4.1), and gives each change entry its id.

Lenient where the reference is: every key is optional, booleans may be strings, null entries are
dropped, unknown keys are kept and echoed. What can not be understood at all is refused with a text
that names the field, so that nobody believes to be subscribed to something else.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

import msgspec

from heliograph.core.channels.effects import Binding
from heliograph.errors import RemoteProtocolError
from heliograph.limits import (
    BINDINGS_BYTES_PER_CHANNEL_MAX,
    BINDINGS_PER_CHANNEL_MAX,
    SELECT_COLUMNS_MAX,
    TOKEN_BYTES_MAX,
)

_ID_MAX: Final = 2**27 - 1
#: Parts of a legacy topic after ``realtime:``, in order.
_LEGACY_PARTS: Final = ("schema", "table", "filter")
#: Keys of an entry that subscribing reads (`core.matching`: `binding_parameters`,
#: `position_request`).
_READ_KEYS: Final = ("event", "schema", "table", "filter", "select", "positions", "since")


@dataclass(frozen=True, slots=True)
class JoinConfig:
    """What a join asks for.

    Attributes:
        bindings: One for each entry of ``postgres_changes``, duplicates included, in order.
        is_private: Whether a private channel is asked for.
        is_legacy: Whether the join has no ``config``: the topic itself names what to subscribe to.
        token: The join's own token; None if the connection's key counts.
    """

    bindings: tuple[Binding, ...]
    is_private: bool
    is_legacy: bool
    token: str | None

    def distinct_bindings(self) -> tuple[Binding, ...]:
        """Return each id once, in order."""
        return tuple({binding.id: binding for binding in self.bindings}.values())

    def without_echo(self) -> "JoinConfig":
        """Return what is needed once the join is answered: each id once, and what is read of it."""
        kept = [Binding(each.id, _read_part(each.parameters)) for each in self.distinct_bindings()]
        return replace(self, bindings=tuple(kept))


def parse_join(sub_topic: str, payload: object) -> JoinConfig:
    """Read the payload of a join.

    Args:
        sub_topic: What follows ``realtime:`` in the topic; used by a legacy join.
        payload: Decoded JSON.

    Raises:
        RemoteProtocolError: If the payload can not be understood; the text is for the client.
    """
    fields = _object(payload, "the join payload")
    token = read_token(fields.get("user_token") or fields.get("access_token"))
    if "config" not in fields:
        named = zip(_LEGACY_PARTS, sub_topic.split(":", 2), strict=False)
        parameters = {name: value for name, value in named if value}
        return JoinConfig(
            bindings=_with_ids([{"event": "*", **parameters}]),
            is_private=False,
            is_legacy=True,
            token=token,
        )
    config = _object(fields["config"] or {}, "config")
    return JoinConfig(
        bindings=_with_ids(_entries(config.get("postgres_changes"))),
        is_private=_boolean(config.get("private"), "config.private"),
        is_legacy=False,
        token=token,
    )


def read_token(value: object) -> str | None:
    """Read an ``access_token`` field.

    Returns:
        The token; None where the connection's key counts: absent, null, empty, or an ``sb_…`` key.

    Raises:
        RemoteProtocolError: If it is not a string or too long; without the value.
    """
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > TOKEN_BYTES_MAX:
        message = "MalformedJWT: The token provided is not a valid JWT"
        raise RemoteProtocolError(message)
    return None if value.startswith("sb_") else value


def read_token_refresh(payload: object) -> str | None:
    """Read the payload of an ``access_token`` message, like `read_token`."""
    return read_token(_object(payload, "the payload").get("access_token"))


def _object(value: object, name: str) -> Mapping[str, object]:
    """Expect a JSON object."""
    if not isinstance(value, dict):
        message = f"InvalidJoinPayload: {name} must be an object"
        raise RemoteProtocolError(message)
    return cast("dict[str, object]", value)


def _boolean(value: object, name: str) -> bool:
    """Expect a boolean, or one as text in any case; absent and null are false."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    message = f"InvalidJoinPayload: {name} must be true or false"
    raise RemoteProtocolError(message)


def _entries(value: object) -> list[Mapping[str, object]]:
    """Expect a list of objects; null entries are dropped, null is the empty list."""
    if value is None:
        return []
    if not isinstance(value, list):
        message = "InvalidJoinPayload: config.postgres_changes must be a list"
        raise RemoteProtocolError(message)
    entries = [each for each in cast("list[object]", value) if each is not None]
    if len(entries) > BINDINGS_PER_CHANNEL_MAX:
        message = (
            "InvalidJoinPayload: config.postgres_changes may have at most "
            f"{BINDINGS_PER_CHANNEL_MAX} entries"
        )
        raise RemoteProtocolError(message)
    return [_object(each, "each entry of config.postgres_changes") for each in entries]


def _with_ids(entries: Sequence[Mapping[str, object]]) -> tuple[Binding, ...]:
    """Give equal entries equal ids and different entries different ones.

    The id is a 27 bit hash of the entry's canonical JSON, so that a client gets the same ids after
    a reconnect. Two different entries of one join that collide (1 in 134 million for a pair) are
    told apart by taking the next free number.
    """
    taken: dict[int, bytes] = {}
    bindings: list[Binding] = []
    size = 0
    for entry in entries:
        canonical = msgspec.json.encode(entry, order="sorted")
        size += len(canonical)
        if size > BINDINGS_BYTES_PER_CHANNEL_MAX:
            message = (
                "InvalidJoinPayload: config.postgres_changes may have at most "
                f"{BINDINGS_BYTES_PER_CHANNEL_MAX} bytes"
            )
            raise RemoteProtocolError(message)
        digest = hashlib.blake2b(canonical, digest_size=8).digest()
        binding_id = int.from_bytes(digest, "big") % _ID_MAX + 1
        while taken.setdefault(binding_id, canonical) != canonical:
            binding_id = binding_id % _ID_MAX + 1
        bindings.append(Binding(binding_id, entry))
    return tuple(bindings)


def _read_part(entry: Mapping[str, object]) -> Mapping[str, object]:
    """Leave out what subscribing does not read; what is left is understood as the whole is."""
    return {key: _readable(entry[key]) for key in _READ_KEYS if key in entry}


def _readable(value: object) -> object:
    """Keep a string, true, null, or the strings of a list; anything else is of the wrong type."""
    if isinstance(value, list):
        # One more than allowed is as wrong as all of them.
        some = cast("list[object]", value)[: SELECT_COLUMNS_MAX + 1]
        return [each if isinstance(each, str) else None for each in some]
    return value if value is None or isinstance(value, bool | str) else False
