"""The ``data`` object of a ``postgres_changes`` message, encoded once for everybody who sees it.

    {"type":"UPDATE","schema":"public","table":"t","columns":[{"name":"id","type":"int8"}],
     "commit_timestamp":"2026-01-02T03:04:05.678Z","record":{…},"old_record":{…},"errors":null}

Invariants: a value that the WAL did not carry is left out, never null (`visibility.md` §3);
columns that are not shown leave no trace, their size included; numbers keep every digit.
Source: protocol §10.1 to §10.3.
"""

from collections.abc import Container, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Raw

from heliograph import limits
from heliograph.core.matching.json_values import presenter_of
from heliograph.core.matching.table_description import TableDescription
from heliograph.core.replication.relation import Relation
from heliograph.core.replication.row_change import ChangeKind, Row
from heliograph.errors import LocalProtocolError

if TYPE_CHECKING:
    from heliograph.core.matching.json_values import Presenter

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TOO_LARGE: Final = b'["Error 413: Payload Too Large"]'


def shown_columns(
    table: TableDescription, selectable: Container[str], select: Container[str] | None = None
) -> tuple[str, ...]:
    """Choose the columns that one audience gets, in attribute order.

    Args:
        table: The table; what the WAL does not carry of it is not shown.
        selectable: Columns that the role may SELECT.
        select: Columns that the subscription asked for; the primary key is always added. None
            means all.
    """
    return tuple(
        [
            column.name
            for column in table.columns
            if column.name in selectable
            and table.is_streamed(column)
            and (select is None or column.name in select or column.name in table.primary_key)
        ]
    )


class ChangeEncoder:
    """Encodes the changes of one relation version with one choice of columns.

    Everything that does not change from row to row is prepared; one encoding costs two to five
    microseconds for a row of some ten columns.
    """

    __slots__ = ("_encoder", "_fields", "_last_time", "_prefixes")

    def __init__(self, table: TableDescription, relation: Relation, shown: Sequence[str]) -> None:
        """Prepare the parts that all changes share.

        Args:
            table: Description that agrees with the relation (`visibility.md` §3).
            relation: The version that the rows follow.
            shown: Names of the columns to show, in attribute order (`shown_columns`).

        Raises:
            LocalProtocolError: If a shown column is not part of both.
        """
        self._encoder = msgspec.json.Encoder()
        places = {column.name: place for place, column in enumerate(relation.columns)}
        fields: list[tuple[str, int, Presenter]] = []
        columns: list[dict[str, str]] = []
        for name in shown:
            column = table.column(name)
            place = places.get(name)
            if column is None or place is None:
                message = f"column {name!r} is not part of the table and its relation message"
                raise LocalProtocolError(message)
            fields.append((name, place, presenter_of(column.type)))
            columns.append({"name": name, "type": column.type_name})
        self._fields = tuple(fields)
        self._prefixes = {kind: self._prefix(kind, relation, columns) for kind in ChangeKind}
        self._last_time = (-1, b"")

    def encode(
        self,
        kind: ChangeKind,
        new: Row | None,
        old: Row | None,
        commit_time_us: int,
        old_columns: Container[str] | None = None,
    ) -> bytes:
        """Encode one change.

        Args:
            kind: What the subscriber is told; an INSERT has no old record, a DELETE no record.
            new: The new row; None shows ``{}``.
            old: The old row; None shows ``{}``.
            commit_time_us: Microseconds since 1970-01-01 UTC; shown in milliseconds, cut.
            old_columns: The only columns of the old row to show (the primary key, where the rest
                is not to be seen); None means every shown column that is known.

        Returns:
            JSON, without line breaks. Above CHANGE_DATA_BYTES_MAX values of more than
            CHANGE_VALUE_BYTES_KEPT bytes are left out, and ``errors`` says so.
        """
        encoded = self._assembled(
            kind,
            self._encoder.encode(self._record(new, None)),
            self._encoder.encode(self._record(old, old_columns)),
            commit_time_us,
            b"null",
        )
        if len(encoded) <= limits.CHANGE_DATA_BYTES_MAX:
            return encoded
        return self._assembled(
            kind,
            self._encoder.encode(self._short_record(new, None)),
            self._encoder.encode(self._short_record(old, old_columns)),
            commit_time_us,
            _TOO_LARGE,
        )

    def _prefix(self, kind: ChangeKind, relation: Relation, columns: list[dict[str, str]]) -> bytes:
        head = {
            "type": kind.value,
            "schema": relation.schema,
            "table": relation.name,
            "columns": columns,
        }
        return self._encoder.encode(head)[:-1] + b',"commit_timestamp":"'

    def _record(self, row: Row | None, only: Container[str] | None) -> dict[str, object]:
        record: dict[str, object] = {}
        if row is None:
            return record
        for name, place, present in self._fields:
            value = row[place]
            if isinstance(value, str):
                record[name] = value if present is None else present(value)
            elif value is None:
                record[name] = None
        if only is not None:
            return {name: value for name, value in record.items() if name in only}
        return record

    def _short_record(self, row: Row | None, only: Container[str] | None) -> dict[str, Raw]:
        encoded = {
            name: self._encoder.encode(value) for name, value in self._record(row, only).items()
        }
        return {
            name: Raw(value)
            for name, value in encoded.items()
            if len(value) <= limits.CHANGE_VALUE_BYTES_KEPT
        }

    def _assembled(
        self, kind: ChangeKind, record: bytes, old_record: bytes, time_us: int, errors: bytes
    ) -> bytes:
        parts = [self._prefixes[kind], self._time(time_us), b'"']
        if kind is not ChangeKind.DELETE:
            parts += (b',"record":', record)
        if kind is not ChangeKind.INSERT:
            parts += (b',"old_record":', old_record)
        parts += (b',"errors":', errors, b"}")
        return b"".join(parts)

    def _time(self, time_us: int) -> bytes:
        second, microseconds = divmod(time_us, 1_000_000)
        known_second, text = self._last_time
        if known_second != second:
            moment = _EPOCH + timedelta(seconds=second)
            text = moment.isoformat(timespec="seconds").removesuffix("+00:00").encode()
            self._last_time = (second, text)
        return b"%s.%03dZ" % (text, microseconds // 1_000)
