"""PostgreSQL connection URLs as settings: checking them, and giving them another login.

Source: PostgreSQL documentation, "Connection URIs" (libpq).
"""

from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from heliograph.config.secret import Secret
from heliograph.config.values import check_port, split_url

_SCHEMES: Final = ("postgres", "postgresql")


def parse_postgres_url(text: str) -> Secret:
    """Return a PostgreSQL connection URL; it is secret because it may hold a password."""
    expected = "expected postgresql://user:password@host:port/database"
    parts = split_url(text, expected)
    if parts.scheme not in _SCHEMES or not (parts.netloc or parts.query):
        raise ValueError(expected)
    # A bare @ in a password makes libpq look for the host behind the first one, and print it.
    if parts.netloc.count("@") > 1:
        message = "a password with @ in it must be written with %40"
        raise ValueError(message)
    names_database = parts.path.strip("/") or "dbname" in dict(parse_qsl(parts.query))
    if not names_database:
        # libpq would take the one named like the login, and ours connect under several.
        message = f"{expected}; the database is not named"
        raise ValueError(message)
    # Several hosts in one URL are allowed by libpq; only it can check them.
    if "," not in parts.netloc:
        check_port(parts, expected)
    return Secret(text)


def url_with_login(url: Secret, user: str, password: Secret) -> Secret:
    """Return a PostgreSQL URL with another login; host, database and other options stay."""
    parts = urlsplit(url.reveal())
    hosts = parts.netloc.rpartition("@")[2]
    login = f"{quote(user, safe='')}:{quote(password.reveal(), safe='')}"
    options = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if name not in {"user", "password"}
    ]
    query = urlencode(options, quote_via=quote)
    return Secret(parts._replace(netloc=f"{login}@{hosts}", query=query).geturl())
