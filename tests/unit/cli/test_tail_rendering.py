"""One change is one line, whatever its values hold."""

import json
from datetime import UTC, timedelta, timezone

import pytest
from hypothesis import given, strategies as st

from heliograph import limits
from heliograph.cli.tail_rendering import escape_json, escape_unprintable, render_change
from heliograph.errors import RemoteProtocolError


def line(*, zone=UTC, is_many_tables=False, **change) -> str:
    content = {
        "type": "INSERT",
        "schema": "public",
        "table": "orders",
        "commit_timestamp": "2026-11-10T14:03:22.123Z",
        "columns": [],
        "errors": None,
        **change,
    }
    segments = render_change(json.dumps(content).encode(), zone=zone, is_many_tables=is_many_tables)
    return "".join([segment.text for segment in segments])


def test_an_insert_shows_key_and_values():
    record = {"id": 7, "status": "pending", "total": 12.50, "note": None, "paid": True}
    assert (
        line(record=record)
        == "14:03:22.123 INSERT id=7  status=pending, total=12.5, note=null, paid=true"
    )


def test_an_update_shows_what_changed_old_and_new():
    old = {"id": 7, "status": "pending", "total": 10, "paid": False}
    new = {"id": 7, "status": "processing", "total": 10, "paid": True}
    assert (
        line(type="UPDATE", record=new, old_record=old)
        == "14:03:22.123 UPDATE id=7  status: pending → processing, paid: false → true"
    )


def test_an_update_whose_old_row_is_only_the_key_shows_every_new_value():
    new = {"code": "A1", "name": "b"}
    assert (
        line(type="UPDATE", record={"name": "b", "code": "A1"}, old_record={"code": "A1"})
        == "14:03:22.123 UPDATE code=A1  name=b"
    )
    assert line(type="UPDATE", record=new) == "14:03:22.123 UPDATE code=A1  name=b"


def test_an_old_value_that_was_not_sent_is_a_question_mark():
    new = {"id": 1, "name": "b", "body": "long"}
    old = {"id": 1, "name": "a"}
    # Fewer columns than the new row would be the key; one more makes it an incomplete old row.
    assert "body: ? → long" in line(type="UPDATE", record=new, old_record={**old, "gone": None})


def test_a_delete_shows_the_key_and_the_old_values_if_there_are_any():
    assert line(type="DELETE", old_record={"id": 7}) == "14:03:22.123 DELETE id=7"
    assert (
        line(type="DELETE", old_record={"id": 7, "status": "new"})
        == "14:03:22.123 DELETE id=7  status=new"
    )


def test_a_key_of_several_columns_is_found_by_their_names():
    row = {"product_id": 1, "branch_id": 2, "quantity": 3}
    assert line(record=row) == "14:03:22.123 INSERT product_id=1 branch_id=2  quantity=3"


def test_the_table_is_named_where_there_are_many():
    assert line(record={"id": 1}, is_many_tables=True) == "14:03:22.123 INSERT public.orders id=1"


def test_the_commit_time_is_shown_in_the_given_zone():
    zone = timezone(timedelta(hours=-3))
    assert line(record={"id": 1}, zone=zone).startswith("11:03:22.123 ")
    assert line(record={"id": 1}, commit_timestamp=None).startswith("--:--:--.--- ")
    assert line(record={"id": 1}, commit_timestamp="soon\x1b").startswith("soon\\u001b ")


def test_errors_of_the_server_are_shown():
    text = line(record={"id": 1}, errors=["Error 413: Payload Too Large"])
    assert text.endswith("(Error 413: Payload Too Large)")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", '""'),
        ("two words", '"two words"'),
        ("null", '"null"'),
        ("true", '"true"'),
        ("12", '"12"'),
        ("-1.5e3", '"-1.5e3"'),
        ("a,b", '"a,b"'),
        ("a=b", '"a=b"'),
        ('say "x"', '"say \\"x\\""'),
        ("Ñandú", "Ñandú"),
        ("2026-11-10T14:03:22+00:00", "2026-11-10T14:03:22+00:00"),
        ("\x1b[2J", '"\\u001b[2J"'),
        ("a\nb", '"a\\nb"'),
        ("\x9b31m", '"\\u009b31m"'),
        ("\u202egpj.exe", '"\\u202egpj.exe"'),
        ("a\u2028b", '"a\\u2028b"'),
        ({"b": [1, None, 2.5]}, '{"b":[1,null,2.5]}'),
        (9007199254740993, "9007199254740993"),
    ],
)
def test_values_are_shown_so_that_they_can_not_be_mistaken(value, shown):
    assert line(record={"id": 1, "v": value}) == f"14:03:22.123 INSERT id=1  v={shown}"


def test_every_digit_of_a_numeric_is_kept():
    content = b'{"type":"INSERT","schema":"s","table":"t","record":{"id":1,"n":%s}}'
    number = "12345678901234567890.5000000000"
    segments = render_change(content % number.encode(), zone=UTC, is_many_tables=False)
    assert segments[-1].text == number


def test_a_long_value_is_cut_with_an_ellipsis():
    most = limits.TAIL_VALUE_CHARACTERS_MAX
    assert line(record={"id": 1, "v": "x" * (most + 1)}).endswith(f"v={'x' * most}…")
    assert line(record={"id": 1, "v": "x" * most}).endswith(f"v={'x' * most}")


def test_names_are_shown_as_carefully_as_values():
    assert line(record={"id": 1, "a\x1b b": 2}).endswith('  "a\\u001b b"=2')
    assert line(type="IN\x07SERT", record={"id": 1}).startswith("14:03:22.123 IN\\u0007SERT")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"type":1}', b"\xff"])
def test_what_is_no_change_is_the_protocol_error(content):
    with pytest.raises(RemoteProtocolError):
        render_change(content, zone=UTC, is_many_tables=False)


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_rows = st.dictionaries(st.text(), _json_values, max_size=5)


@given(type_=st.text(), record=_rows, old_record=_rows, errors=st.none() | st.lists(st.text()))
def test_any_change_is_one_printable_line(type_, record, old_record, errors):
    text = line(
        type=type_, record=record, old_record=old_record, errors=errors, is_many_tables=True
    )
    assert text.isprintable()


@given(_json_values)
def test_json_output_is_one_printable_line_of_the_same_json(value):
    for layout in ({}, {"indent": 2}, {"ensure_ascii": False}):
        text = escape_json(json.dumps(value, **layout).encode("utf-8", "surrogatepass"))
        assert text.isprintable()
        assert json.loads(text) == value


@given(st.text())
def test_escaping_leaves_printable_characters_alone(text):
    escaped = escape_unprintable(text)
    assert escaped.isprintable()
    if text.isprintable():
        assert escaped == text
