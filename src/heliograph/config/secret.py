"""A text that must not be printed by accident."""

import hmac
from typing import Final

#: What every printed form of a secret shows.
_HIDDEN: Final = "Secret(hidden)"


class Secret:
    """A password, key, or URL with a password in it; `reveal` is the only way to its text.

    ``repr``, ``str`` and formatting show a fixed word, so that a secret in a log line, an error or
    a dataclass's ``repr`` stays one. It can not be pickled.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Keep `text`."""
        self._text = text

    def reveal(self) -> str:
        """Return the text. Give it to the one who needs it; do not keep it."""
        return self._text

    def __repr__(self) -> str:
        """Return a fixed word."""
        return _HIDDEN

    def __str__(self) -> str:
        """Return a fixed word."""
        return _HIDDEN

    def __eq__(self, other: object) -> bool:
        """Compare in constant time."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        """Hash like the text, so that equal secrets hash alike."""
        return hash(self._text)

    def __deepcopy__(self, memo: dict[int, object]) -> "Secret":
        """Return the same secret: it can not change."""
        return self

    def __reduce__(self) -> str:
        """Refuse to be pickled: a pickle would hold the text."""
        message = "a Secret can not be pickled"
        raise TypeError(message)
