"""Opening one connection from a setting, with errors that hold no secret.

libpq's texts name host, port, user and database, which an operator needs; texts about the URL
itself may repeat a piece of a password, so they are replaced.
"""

from typing import Final

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from heliograph.config import Secret
from heliograph.errors import ConfigurationError, UnavailableError
from heliograph.limits import POSTGRES_CONNECT_TIMEOUT_S

#: Beginnings of libpq's and psycopg's texts that repeat nothing of a password.
_HARMLESS_TEXTS: Final = (
    "connection failed: connection to server",
    "connection timeout expired",
    "failed to resolve host",
)

#: Refusals that pass by themselves: the server starts, stops, recovers, or is full.
_PASSING_REFUSALS: Final = ("starting up", "shutting down", "recovery", "too many", "remaining")


async def connect(
    url: Secret, *, variable: str, is_replication: bool = False
) -> AsyncConnection[TupleRow]:
    """Open a connection in autocommit mode.

    Args:
        url: Where to, as which login.
        variable: Environment variable that the URL comes from, for the error.
        is_replication: Whether it is to speak the replication protocol
            (``replication=database``); such a connection takes simple statements only.

    Raises:
        ConfigurationError: If the server refuses the login or the database, or the URL is not one
            that libpq accepts.
        UnavailableError: If the server does not answer, or can not serve yet.
    """
    try:
        connection = await AsyncConnection.connect(
            url.reveal(),
            autocommit=True,
            connect_timeout=POSTGRES_CONNECT_TIMEOUT_S,
            client_encoding="UTF8",
            replication="database" if is_replication else None,
        )
        # Nothing of ours is in schema public, where an operator may fit better than PostgreSQL's.
        await connection.execute("set search_path = ''")
        return connection  # noqa: TRY300 - what it raises is translated, too
    except psycopg.Error as error:
        text = f"{variable}: {failure_text(error)}"
        if is_refusal(error):
            raise ConfigurationError(text) from None
        raise UnavailableError(text) from None


def failure_text(error: psycopg.Error) -> str:
    """Return the first line of a connection error if it holds no secret, else a general text."""
    text = str(error)
    if text.startswith(_HARMLESS_TEXTS):
        return text.splitlines()[0].removeprefix("connection failed: ")
    return "libpq does not accept the URL; special characters in a password must be %-encoded"


def is_refusal(error: psycopg.Error) -> bool:
    """Return whether repeating the attempt is useless until somebody changes something."""
    text = str(error)
    if not text.startswith(_HARMLESS_TEXTS):
        return True
    return "FATAL" in text and not any(passing in text for passing in _PASSING_REFUSALS)
