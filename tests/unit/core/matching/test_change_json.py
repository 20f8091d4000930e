"""The ``data`` object of a change (protocol §10.1 to §10.3)."""

import json
from dataclasses import replace
from typing import Any

import pytest

from fixtures.tables import column, relation_of, table_of
from heliograph import limits
from heliograph.core.matching.change_json import ChangeEncoder, shown_columns
from heliograph.core.replication.row_change import ChangeKind, Row, Unknown
from heliograph.errors import LocalProtocolError

_TABLE = table_of(
    column("id", "int8"), column('na"me', "text"), column("price", "numeric"), column("big", "text")
)
_RELATION = relation_of(_TABLE)
_ALL = tuple(c.name for c in _TABLE.columns)
_TIME_US = 1_767_323_045_678_901


def _encoded(
    kind: ChangeKind, new: Row | None, old: Row | None = None, shown: tuple[str, ...] = _ALL
) -> Any:
    encoder = ChangeEncoder(_TABLE, _RELATION, shown)
    return json.loads(encoder.encode(kind, new, old, _TIME_US))


def test_an_insert_has_a_record_and_no_old_record() -> None:
    encoder = ChangeEncoder(_TABLE, _RELATION, ("id", "price"))
    assert encoder.encode(ChangeKind.INSERT, ("1", "x", "1.50", None), None, _TIME_US) == (
        b'{"type":"INSERT","schema":"public","table":"things",'
        b'"columns":[{"name":"id","type":"int8"},{"name":"price","type":"numeric"}],'
        b'"commit_timestamp":"2026-01-02T03:04:05.678Z",'
        b'"record":{"id":1,"price":1.50},"errors":null}'
    )


def test_an_update_has_both_and_a_delete_only_the_old_record() -> None:
    row: Row = ("1", "x", None, "y")
    update = _encoded(ChangeKind.UPDATE, row, ("2", None, None, None))
    assert update["record"] == {"id": 1, 'na"me': "x", "price": None, "big": "y"}
    assert update["old_record"]["id"] == 2
    delete = _encoded(ChangeKind.DELETE, None, row)
    assert "record" not in delete
    assert delete["old_record"] == {"id": 1, 'na"me': "x", "price": None, "big": "y"}


@pytest.mark.security
def test_values_that_the_wal_did_not_carry_are_left_out() -> None:
    update = _encoded(
        ChangeKind.UPDATE,
        ("1", "x", "1", Unknown.UNCHANGED_TOAST),
        ("1", Unknown.NOT_SENT, Unknown.NOT_SENT, Unknown.NOT_SENT),
    )
    assert update["record"] == {"id": 1, 'na"me': "x", "price": 1}
    assert update["old_record"] == {"id": 1}


def test_a_row_that_is_not_to_be_shown_is_an_empty_object() -> None:
    assert _encoded(ChangeKind.UPDATE, ("1", "x", "1", ""), None)["old_record"] == {}


def test_the_old_row_may_be_cut_to_the_key() -> None:
    encoder = ChangeEncoder(_TABLE, _RELATION, _ALL)
    row: Row = ("1", "x", "2", "y")
    encoded = json.loads(encoder.encode(ChangeKind.UPDATE, row, row, _TIME_US, {"id"}))
    assert encoded["old_record"] == {"id": 1}
    assert len(encoded["record"]) == 4


def test_a_too_large_change_keeps_its_short_values() -> None:
    big = "x" * limits.CHANGE_DATA_BYTES_MAX
    fits = "y" * (limits.CHANGE_VALUE_BYTES_KEPT - 2)
    change = _encoded(ChangeKind.UPDATE, ("1", big, "1.5", fits), ("1", fits + "y", None, "z"))
    assert change["errors"] == ["Error 413: Payload Too Large"]
    assert change["record"] == {"id": 1, "price": 1.5, "big": fits}
    assert change["old_record"] == {"id": 1, "price": None, "big": "z"}


def test_the_size_of_a_column_that_is_not_shown_leaves_no_trace() -> None:
    big = "x" * limits.CHANGE_DATA_BYTES_MAX
    change = _encoded(ChangeKind.INSERT, ("1", big, None, None), shown=("id",))
    assert change["errors"] is None


def test_changes_of_different_times_have_their_own_time() -> None:
    encoder = ChangeEncoder(_TABLE, _RELATION, ())
    times = [
        json.loads(encoder.encode(ChangeKind.INSERT, None, None, time_us))["commit_timestamp"]
        for time_us in (0, 0, 999, 1_000)
    ]
    assert times == [
        "1970-01-01T00:00:00.000Z",
        "1970-01-01T00:00:00.000Z",
        "1970-01-01T00:00:00.000Z",
        "1970-01-01T00:00:00.001Z",
    ]


@pytest.mark.parametrize("name", ["nothing", "late"])
def test_a_column_that_is_not_in_both_descriptions_is_our_own_fault(name: str) -> None:
    wider = replace(_TABLE, columns=(*_TABLE.columns, column("late", "int4")))
    with pytest.raises(LocalProtocolError, match=name):
        ChangeEncoder(wider, _RELATION, (name,))


@pytest.mark.parametrize(
    ("selectable", "select", "expected"),
    [
        (_ALL, None, _ALL),
        (("id", "big"), None, ("id", "big")),
        (_ALL, ("big", "price"), ("id", "price", "big")),
        (("big",), ("big", "price"), ("big",)),
    ],
)
def test_shown_columns_are_readable_selected_or_key_in_attribute_order(
    selectable: tuple[str, ...], select: tuple[str, ...] | None, expected: tuple[str, ...]
) -> None:
    assert shown_columns(_TABLE, selectable, select) == expected


def test_columns_that_the_stream_does_not_carry_are_not_shown() -> None:
    table = replace(_TABLE, published_columns=frozenset(_ALL[:2]))
    assert shown_columns(table, _ALL) == _ALL[:2]
    assert shown_columns(table, _ALL, ("id", "big")) == ("id",)
