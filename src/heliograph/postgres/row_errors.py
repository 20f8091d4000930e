"""Errors that a row causes, and those that pass."""

from typing import Final

import psycopg

#: SQLSTATE classes that no row causes: connection, a prepared statement that is gone, transaction
#: rollback, resources, a lock or state in the way, an operator's intervention, and faults of
#: PostgreSQL itself. Every other error is the row's, which is denied to that subscriber.
_PASSING_CLASSES: Final = frozenset({"", "08", "26", "40", "53", "55", "57", "58", "F0", "XX"})


def is_row_error(error: psycopg.Error) -> bool:
    """Tell whether the row caused an error, so that repeating it would not help."""
    return (error.sqlstate or "")[:2] not in _PASSING_CLASSES


def failure_in_words(error: psycopg.Error) -> str:
    """Say what failed, for whoever waits for it: PostgreSQL's own words may hold values."""
    state = error.sqlstate
    if state is None or state.startswith(("08", "57P")):
        return "the database closed the connection"
    return f"SQLSTATE {state}"
