"""Constants read as PostgreSQL's input functions read them; values made comparable."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from fixtures.tables import array_of, builtin, column, composite_of, domain_over, enum_type
from heliograph.core.matching.canonical_values import (
    Comparison,
    ConstantFault,
    comparison_of,
    is_boolean,
)
from heliograph.core.matching.table_description import ColumnDescription, TypeDescription

_UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"


def _comparison(name: str) -> Comparison:
    comparison = comparison_of(column("value", name))
    assert comparison is not None
    return comparison


@pytest.mark.parametrize(
    ("name", "constant", "canonical"),
    [
        ("int4", " +007\n", "7"),
        ("int4", "-0", "0"),
        ("int4", "-2147483648", "-2147483648"),
        ("int2", "000000000000000000000000000032767", "32767"),
        ("int4", "0x10", None),
        ("int4", "1_000", None),
        ("bool", " TRUE", "t"),
        ("bool", "of", "f"),
        ("uuid", _UUID, _UUID),
        ("uuid", "{" + _UUID.upper() + "}", _UUID),
        ("uuid", _UUID.replace("-", ""), _UUID),
        ("text", " a ", " a "),
        ("numeric", " 1.50 ", "1.50"),
        ("numeric", "nan", "NaN"),
        ("numeric", "-inf", "-Infinity"),
        ("numeric", "+Infinity", "Infinity"),
        ("numeric", "1e99999", None),
        ("numeric", "1" * 1_001, None),
        ("numeric", "x", None),
        ("date", "2026-01-02", "2026-01-02"),
        ("date", "infinity", "infinity"),
        ("date", "2026-02-30", None),
        ("date", "today", None),
        ("timestamp", "2026-01-02T03:04:05.6", "2026-01-02 03:04:05.6"),
        ("timestamp", "-infinity", "-infinity"),
        ("timestamp", "2026-02-30 03:04:05", None),
        ("timestamp", "2026-01-02", None),
        ("timestamptz", "2026-01-02T03:04:05Z", "2026-01-02 03:04:05+00:00"),
        ("timestamptz", "2026-01-02 03:04:05-0530", "2026-01-02 03:04:05-05:30"),
        ("timestamptz", "2026-01-02 03:04:05", None),
        ("timestamptz", "infinity", "infinity"),
        ("timestamptz", "now", None),
    ],
)
def test_constants_are_canonical_or_left_to_postgresql(
    name: str, constant: str, canonical: str | None
) -> None:
    assert _comparison(name).canonical(constant) == canonical


@pytest.mark.parametrize(
    ("name", "constant", "state", "text"),
    [
        ("int4", "hey", "22P02", 'invalid input syntax for type integer: "hey"'),
        ("int4", "", "22P02", 'invalid input syntax for type integer: ""'),
        ("int2", "32768", "22003", 'value "32768" is out of range for type smallint'),
        ("int8", "9" * 9_999, "22003", f'value "{"9" * 9_999}" is out of range for type bigint'),
        ("bool", "2", "22P02", 'invalid input syntax for type boolean: "2"'),
        ("bool", "\uff54", "22P02", 'invalid input syntax for type boolean: "\uff54"'),
        ("uuid", "{" + _UUID, "22P02", 'invalid input syntax for type uuid: "{' + _UUID + '"'),
        (
            "uuid",
            "\u0661" * 32,
            "22P02",
            f'invalid input syntax for type uuid: "{chr(0x661) * 32}"',
        ),
    ],
)
def test_constants_that_postgresql_refuses_are_faults_in_its_words(
    name: str, constant: str, state: str, text: str
) -> None:
    fault = _comparison(name).canonical(constant)
    assert isinstance(fault, ConstantFault)
    assert (fault.sqlstate, fault.text) == (state, text)


@pytest.mark.parametrize(
    "described",
    [
        column("v", "float8"),
        column("v", "bpchar"),
        column("v", "json"),
        column("v", array_of(builtin("int4"))),
        column("v", composite_of(a=builtin("int4"))),
        column("v", TypeDescription(9, "public", "text", "public.text")),
        column("v", "text", deterministic=False),
        column("v", domain_over(builtin("varchar")), deterministic=False),
        column("v", domain_over(builtin("int4"), own=True)),
        column("v", domain_over(domain_over(builtin("int4"), own=True))),
        column("v", enum_type(own=True)),
    ],
)
def test_what_can_not_be_compared_exactly_is_left_to_postgresql(
    described: ColumnDescription,
) -> None:
    assert comparison_of(described) is None


def test_enums_and_domains_are_compared_by_text_and_by_the_type_below() -> None:
    enum = comparison_of(column("v", enum_type()))
    assert enum is not None
    assert (enum.canonical("Very Happy"), enum.is_checked) == ("Very Happy", False)
    assert comparison_of(column("v", domain_over(builtin("int4")))) is _comparison("int4")


def test_booleans_are_known_through_domains() -> None:
    assert is_boolean(domain_over(builtin("bool")))
    assert not is_boolean(builtin("int4"))
    assert not is_boolean(TypeDescription(9, "public", "bool", "public.bool"))


def test_numbers_have_postgresqls_order() -> None:
    key = _comparison("numeric").key
    texts = ["-Infinity", "-1.5", "0", "0.10", "2", "Infinity", "NaN"]
    keys: list[object] = [key(text) for text in texts]
    assert sorted(keys, key=lambda k: k) == keys  # type: ignore[arg-type,return-value]  # keys are made to be ordered
    assert key("0.10") == key("0.1")
    assert key("NaN") == key("NaN")
    assert _comparison("int4").key("-7") == -7


@pytest.mark.parametrize("name", ["date", "timestamp", "timestamptz"])
def test_moments_of_an_unexpected_form_have_no_key(name: str) -> None:
    assert _comparison(name).key("01/02/2026") is None


def test_moments_have_postgresqls_order() -> None:
    key = _comparison("timestamptz").key
    texts = [
        "-infinity",
        "4713-01-01 00:00:00+00 BC",
        "0001-12-31 23:59:59.999999+00 BC",
        "0001-01-01 00:00:00+00",
        "1969-12-31 23:59:59+00",
        "1970-01-01 00:00:00+00",
        "1970-01-01 00:00:00-00:00:01",
        "294276-12-31 23:59:59+00",
        "infinity",
    ]
    keys: list[object] = [key(text) for text in texts]
    assert sorted(keys, key=lambda k: k) == keys  # type: ignore[arg-type,return-value]  # keys are made to be ordered
    assert key("2026-01-02 03:04:05+02") == key("2026-01-02 01:04:05+00")
    assert key("1970-01-01 00:00:00.5+00") == 500_000


@given(moment=st.datetimes(), minutes=st.integers(-14 * 60, 14 * 60))
def test_a_moment_is_its_microseconds_since_1970(moment: datetime, minutes: int) -> None:
    sign = "-" if minutes < 0 else "+"
    hours, rest = divmod(abs(minutes), 60)
    text = f"{moment.isoformat(sep=' ')}{sign}{hours:02}:{rest:02}"
    since = moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    expected = (since - timedelta(minutes=minutes)) // timedelta(microseconds=1)
    assert _comparison("timestamptz").key(text) == expected


@given(day=st.dates())
def test_a_date_is_its_days_since_1970(day: date) -> None:
    days = day.toordinal() - date(1970, 1, 1).toordinal()
    assert _comparison("date").key(day.isoformat()) == days * 86_400_000_000
