"""What the entries of a join ask for about positions: ``positions`` and ``since``.

A channel has one order and one position, so one entry asks for all; entries that name different
positions name none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

#: Longer texts are no positions; they are not compared with each other.
_TEXT_CHARACTERS_MAX = 256


@dataclass(frozen=True, slots=True)
class PositionRequest:
    """What a channel asks for.

    Attributes:
        since: Where its client is; None if it begins.
        is_malformed: Whether what was said of that is no text, or differs between entries.
    """

    since: str | None = None
    is_malformed: bool = False


def read_position_request(entries: Iterable[Mapping[str, object]]) -> PositionRequest | None:
    """Read the entries of a join; None if none asks for positions.

    Args:
        entries: Decoded JSON objects, as the client sent them.
    """
    is_wanted = is_malformed = False
    since: set[str] = set()
    for entry in entries:
        said = entry.get("since")
        # Clients that write out every field say null where they have none.
        if said is not None:
            is_wanted = True
            if isinstance(said, str) and len(said) <= _TEXT_CHARACTERS_MAX:
                since.add(said)
            else:
                is_malformed = True
        wants = entry.get("positions")
        is_wanted = is_wanted or wants is True or wants == "true"
    if not is_wanted:
        return None
    if is_malformed or len(since) > 1:
        return PositionRequest(is_malformed=True)
    return PositionRequest(next(iter(since), None))
