"""Keeping secrets out of the report, whatever a text may quote.

No text of ours repeats one; this is the second bolt, for texts that come from elsewhere.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from heliograph.config import Settings, settings_of

_HIDDEN: Final = "[hidden]"

#: Shorter ones would be found inside of ordinary words.
_CHARACTERS_MIN: Final = 8


@dataclass(frozen=True, slots=True)
class Secrets:
    """Texts that must not be shown.

    Attributes:
        texts: The longest first, so that no piece of one is left.
    """

    texts: tuple[str, ...]

    def hide(self, text: str) -> str:
        """Return `text` with every secret replaced."""
        for secret in self.texts:
            text = text.replace(secret, _HIDDEN)
        return text


def collect_secrets(environ: Mapping[str, str], token: str | None) -> Secrets:
    """Collect the values of secret variables, the passwords in URLs among them, and the token."""
    found = {
        environ[variable].strip()
        for setting in settings_of(Settings).values()
        if setting.is_secret
        for variable in setting.variables
        if variable in environ
    }
    found |= {password for value in found for password in _passwords(value)}
    if token is not None:
        found.add(token.strip())
    usable = [text for text in found if len(text) >= _CHARACTERS_MIN]
    return Secrets(tuple(sorted(usable, key=len, reverse=True)))


def _passwords(value: str) -> Iterable[str]:
    """Return a URL's password as it is written and as it is meant.

    Not where it is also the name of the login or the database, which errors must be able to name.
    """
    try:
        parts = urlsplit(value)
        password = parts.password or ""
    except ValueError:
        return ()
    names = {parts.username, parts.hostname, parts.path.strip("/")}
    return {password, unquote(password)} - {name for name in names if name is not None}
