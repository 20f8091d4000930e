"""Turning the text of one environment variable into a checked value.

Every function raises ValueError whose text says what was expected; it never repeats the value,
which may be a secret. The caller adds the variable's name, and the value where it is none.
"""

import ipaddress
import re
from collections.abc import Callable
from enum import Enum
from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from heliograph import limits
from heliograph.config.secret import Secret
from heliograph.core.tokens.bounded_json import decode_object
from heliograph.errors import TokenError

#: PostgreSQL cuts longer names (NAMEDATALEN - 1).
_NAME_BYTES_MAX: Final = 63

_PORT_MAX: Final = 65_535
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_SLOT_PATTERN: Final = re.compile(r"[a-z0-9_]{1,63}")
_EXTENSION_PATTERN: Final = re.compile(r"[A-Za-z0-9_]+(-[A-Za-z0-9_]+)*")
_ORIGIN_PATTERN: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::(?P<port>\d{1,5}))?", re.ASCII
)


class _Key(msgspec.Struct):
    kty: str


class _KeySet(msgspec.Struct):
    keys: list[_Key]


def integer_parser(least: int, most: int) -> Callable[[str], int]:
    """Return a parser of whole numbers between `least` and `most`, both included."""

    def parse(text: str) -> int:
        expected = f"expected a whole number from {least} to {most}"
        if not re.fullmatch(r"\d{1,18}", text, re.ASCII) or not least <= int(text) <= most:
            raise ValueError(expected)
        return int(text)

    return parse


def seconds_parser(least: float, most: float) -> Callable[[str], float]:
    """Return a parser of seconds, with or without a fraction, between `least` and `most`."""

    def parse(text: str) -> float:
        expected = f"expected seconds from {least:g} to {most:g}, such as {least:g} or 2.5"
        if not re.fullmatch(r"\d{1,12}(\.\d{1,9})?", text, re.ASCII):
            raise ValueError(expected)
        value = float(text)
        if not least <= value <= most:
            raise ValueError(expected)
        return value

    return parse


def choice_parser(*words: str) -> Callable[[str], str]:
    """Return a parser that accepts exactly these words."""

    def parse(text: str) -> str:
        if text not in words:
            expected = f"expected one of {', '.join(words)}"
            raise ValueError(expected)
        return text

    return parse


def member_parser(members: type[Enum]) -> Callable[[str], Enum]:
    """Return a parser that accepts exactly the values of an enumeration."""
    parse_value = choice_parser(*[member.value for member in members])

    def parse(text: str) -> Enum:
        return members(parse_value(text))

    return parse


def parse_public_url(text: str) -> str:
    """Return an http(s) URL without query, fragment, credentials and trailing slash."""
    expected = "expected http://host:port or https://host, no credentials, query or fragment"
    parts = split_url(text, expected)
    check_port(parts, expected)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError(expected)
    if parts.query or parts.fragment:
        raise ValueError(expected)
    return text.rstrip("/")


def parse_key_set_url(text: str) -> str:
    """Return the URL of a JWKS: https, or http on the loopback interface only."""
    expected = "expected an https URL (http only for localhost)"
    parts = split_url(text, expected)
    check_port(parts, expected)
    host = parts.hostname or ""
    if not host or "@" in parts.netloc or parts.fragment:
        raise ValueError(expected)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError(expected)
    return text


def is_loopback(host: str) -> bool:
    """Return whether `host` is ``localhost`` or a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_hmac_secret(text: str) -> Secret:
    """Return a secret that is long enough to sign tokens."""
    if len(text.encode()) < limits.JWT_SECRET_BYTES_MIN:
        expected = f"expected at least {limits.JWT_SECRET_BYTES_MIN} bytes"
        raise ValueError(expected)
    return Secret(text)


def parse_key_set(text: str) -> Secret:
    """Return a JWKS as JSON text (RFC 7517); secret because it may hold symmetric keys."""
    expected = 'expected JSON such as {"keys": [{"kty": "EC", …}]} with at least one key'
    try:
        document = msgspec.json.decode(text, type=_KeySet)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(expected) from error
    if not document.keys:
        raise ValueError(expected)
    return Secret(text)


def prefixed_key_parser(prefix: str) -> Callable[[str], Secret]:
    """Return a parser of the newer API keys, such as `sb_publishable_…`."""

    def parse(text: str) -> Secret:
        expected = f"expected {prefix} and at least 16 letters, digits, - or _"
        if not re.fullmatch(re.escape(prefix) + r"[A-Za-z0-9_-]{16,256}", text):
            raise ValueError(expected)
        return Secret(text)

    return parse


def parse_origins(text: str) -> tuple[str, ...]:
    """Return a comma-separated list of web origins in the form browsers send them (RFC 6454).

    An empty text is an empty list. The default port of a scheme is left out, as browsers do.
    """
    found: list[str] = []
    for part in _comma_list(text):
        match = _ORIGIN_PATTERN.fullmatch(part.lower().removesuffix("/"))
        port = int(match["port"] or 0) if match is not None else 0
        if match is None or port > _PORT_MAX or match["port"] == "0":
            expected = (
                "expected exact origins such as https://app.example.com, http://localhost:3000,"
                " separated by commas; no paths, no *"
            )
            raise ValueError(expected)
        is_default = port in (0, _DEFAULT_PORTS[match["scheme"]])
        origin = f"{match['scheme']}://{match['host']}"
        found.append(origin if is_default else f"{origin}:{port}")
    return tuple(dict.fromkeys(found))


def parse_name(text: str) -> str:
    """Return the name of a role, publication or claim: not empty, no NUL, at most 63 bytes."""
    if not text or "\0" in text or len(text.encode()) > _NAME_BYTES_MAX:
        expected = f"expected a name of at most {_NAME_BYTES_MAX} bytes"
        raise ValueError(expected)
    return text


def parse_folder(text: str) -> str:
    """Return the path of a folder, which need not exist: not empty, no NUL."""
    if not text.strip() or "\0" in text:
        expected = "expected the path of a folder"
        raise ValueError(expected)
    return text


def parse_names(text: str) -> tuple[str, ...]:
    """Return a comma-separated list of names, at least one."""
    found = tuple(dict.fromkeys(parse_name(part) for part in _comma_list(text)))
    if not found:
        expected = "expected at least one name"
        raise ValueError(expected)
    return found


def parse_claims(text: str) -> dict[str, object]:
    """Return claims and the values that they must have: a JSON object with at least one."""
    expected = 'expected a JSON object such as {"aud": "shop"} with at least one claim'
    try:
        claims = decode_object(text.encode(errors="replace"))
    except TokenError as error:
        raise ValueError(expected) from error
    if not claims:
        raise ValueError(expected)
    return claims


def parse_extensions(text: str) -> tuple[str, ...]:
    """Return a comma-separated list of PostgreSQL extensions, at least one."""
    found = parse_names(text)
    if not all(_EXTENSION_PATTERN.fullmatch(name) for name in found):
        expected = "expected names of extensions such as pgcrypto, uuid-ossp"
        raise ValueError(expected)
    return found


def parse_slot_name(text: str) -> str:
    """Return the name of a replication slot."""
    if not _SLOT_PATTERN.fullmatch(text):
        expected = "expected 1 to 63 lower-case letters, digits or _"
        raise ValueError(expected)
    return text


def parse_table_names(text: str) -> tuple[str, ...]:
    """Return tables as `schema.table`, or `*` alone for all; a missing schema is `public`."""
    found: list[str] = []
    expected = "expected tables as schema.table or table, unquoted, separated by commas; or * alone"
    for part in _comma_list(text):
        schema, dot, table = part.rpartition(".")
        if '"' in part or "." in schema:
            raise ValueError(expected)
        if part != "*":
            parse_name(schema if dot else "public")
            parse_name(table)
        found.append(part if dot or part == "*" else f"public.{part}")
    if "*" in found and len(found) > 1:
        raise ValueError(expected)
    return tuple(dict.fromkeys(found))


def parse_host(text: str) -> str:
    """Return the name or address of a network interface to listen on."""
    if not re.fullmatch(r"[A-Za-z0-9.:_-]{1,253}", text):
        expected = "expected a host name or an IP address"
        raise ValueError(expected)
    return text


def _comma_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def split_url(text: str, expected: str) -> SplitResult:
    """Return the parts of a URL; raise ValueError with `expected` if it has none."""
    if any(character.isspace() or ord(character) < ord(" ") for character in text):
        raise ValueError(expected)
    try:
        return urlsplit(text)
    except ValueError as error:
        raise ValueError(expected) from error


def check_port(parts: SplitResult, expected: str) -> None:
    """Check the port of a URL; raise ValueError with `expected` if it is none."""
    try:
        _ = parts.port
    except ValueError as error:
        raise ValueError(expected) from error
