"""A row version as PostgreSQL's text form of a composite value.

A value such as ``("two words",,"7")`` can be cast to the table's row type, which is how the exact
path lets PostgreSQL judge the version that stood in the WAL.
Source: https://www.postgresql.org/docs/current/rowtypes.html#ROWTYPES-IO-SYNTAX
"""

from collections.abc import Iterable, Sequence

from heliograph.core.replication.row_change import Row, Unknown, Value


def record_literal(values: Iterable[Value]) -> str:
    """Write the composite text of one row.

    Args:
        values: One value per attribute of the row type, in attribute order. Unknown values are
            written as NULL: the caller has made sure that nothing that is judged reads them.
    """
    return f"({','.join([_field(value) for value in values])})"


def array_literal(texts: Iterable[str]) -> str:
    """Write the text of a one-dimensional array, for example of composite texts.

    Source: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
    """
    elements = [text.replace("\\", "\\\\").replace('"', '\\"') for text in texts]
    return '{"' + '","'.join(elements) + '"}' if elements else "{}"


def arranged(row: Row, positions: Sequence[int | None]) -> list[Value]:
    """Bring a WAL row into the order of the table's row type.

    Args:
        row: Values in the order of the relation's columns.
        positions: For each attribute of the row type, its place in ``row``; None where the WAL
            does not carry the column.
    """
    return [Unknown.NOT_SENT if place is None else row[place] for place in positions]


def _field(value: Value) -> str:
    if value is None or isinstance(value, Unknown):
        return ""
    return '"' + value.replace("\\", "\\\\").replace('"', '""') + '"'
