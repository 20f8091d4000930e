"""Types, values and constants for the filter oracle; the types are made by its test."""

from collections.abc import Sequence
from dataclasses import dataclass

COMPARISONS = ("eq", "neq", "lt", "lte", "gt", "gte", "isdistinct")
PATTERNS = ("like", "ilike", "match", "imatch")


@dataclass(frozen=True)
class TypeCase:
    """Values and constants of one type; None among the values is NULL and is always added."""

    type: str
    values: Sequence[str]
    constants: Sequence[str]
    operators: Sequence[str] = COMPARISONS
    declared: str = ""


_INTEGERS = ("0", "7", "-1", "32767", "-32768", "100")
_INTEGER_CONSTANTS = (
    *_INTEGERS,
    " 7",
    "+7",
    "007",
    "\t7\n",
    "7.0",
    "x",
    "",
    "0x7",
    "1_00",
    "\u0667",
)
_TEXTS = ("", "a", "A", "abc", "NULL", " a ", 'q"uo\\te', "ä", "Z", "a%", "😀", "a,b")
_MOMENTS = (
    "2026-01-02 03:04:05.678901",
    "2026-01-02 03:04:05",
    "2026-01-02 00:00:00",
    "1969-12-31 23:59:59.999999",
    "infinity",
    "-infinity",
    "0044-03-15 10:00:00 BC",
    "0001-01-01 00:00:00 BC",
    "0004-02-29 00:00:00",
    "12026-01-02 03:04:05",
)
CASES = (
    TypeCase("int2", _INTEGERS, (*_INTEGER_CONSTANTS, "32768", "99999999999999999999")),
    TypeCase("int4", (*_INTEGERS, "2147483647"), (*_INTEGER_CONSTANTS, "2147483648")),
    TypeCase(
        "int8",
        (*_INTEGERS, "9223372036854775807", "-9223372036854775808"),
        (*_INTEGER_CONSTANTS, "9223372036854775808", "-9223372036854775808"),
    ),
    # Constants of a domain are read by the type below: -1 is a constant that matches nothing.
    TypeCase("int4", ("1", "7"), ("7", " 7", "-1", "x"), declared="positive"),
    TypeCase(
        "bool",
        ("t", "f"),
        (
            "t",
            "T",
            "yes",
            "on",
            "of",
            "off",
            "0",
            " tru ",
            "o",
            "y",
            "no",
            "2",
            "",
            "TRUE",
            "\uff54",
        ),
    ),
    TypeCase(
        "uuid",
        ("0f8fad5b-d9cb-469f-a165-70867728950e", "00000000-0000-0000-0000-000000000000"),
        (
            "0f8fad5b-d9cb-469f-a165-70867728950e",
            "{0F8FAD5B-D9CB-469F-A165-70867728950E}",
            "0f8fad5bd9cb469fa16570867728950e",
            "0f8f-ad5b-d9cb-469f-a165-7086-7728-950e",
            "0f8fad5bd-9cb-469f-a165-70867728950e",
            "{0f8fad5bd9cb469fa16570867728950e",
            " 0f8fad5b-d9cb-469f-a165-70867728950e",
            "x",
        ),
    ),
    TypeCase("mood", ("sad", "ok", "Very Happy"), ("ok", "Very Happy", "OK", " ok", "")),
    TypeCase(
        "text",
        _TEXTS,
        (*_TEXTS, "a_", "^a", "(", "\\", "a\\\\", "[a-"),
        (*COMPARISONS, *PATTERNS),
    ),
    TypeCase(
        "varchar", _TEXTS, ("a", "abcdef", " a ", "A%"), (*COMPARISONS, *PATTERNS), "varchar(5)"
    ),
    TypeCase("text", ("a", "b", ""), ("a", "A", "a%"), (*COMPARISONS, *PATTERNS), "short_label"),
    TypeCase(
        "bpchar",
        ("a", "ab", "", "A"),
        ("a", "a  ", "AB", "a%"),
        (*COMPARISONS, *PATTERNS),
        "char(4)",
    ),
    TypeCase("name", ("a", "ab"), ("a", "A%"), (*COMPARISONS, *PATTERNS)),
    TypeCase('"char"', ("a", "b"), ("a", ""), COMPARISONS),
    TypeCase("citext", ("a", "A", "b"), ("a", "B", "a%", "("), (*COMPARISONS, *PATTERNS)),
    TypeCase("bytea", ("\\xdead", "\\x"), ("\\xdead", "abc", "\\xde%"), (*COMPARISONS, "like")),
    TypeCase(
        "numeric",
        ("0", "1.50", "-3.25", "NaN", "Infinity", "-Infinity", "12345678901234567890.123456789"),
        (
            "1.5",
            "1.50",
            " 15e-1 ",
            "nan",
            "-nan",
            "inf",
            "+Infinity",
            "-inf",
            "0.0",
            ".5",
            "5.",
            ".",
            "1e400",
            "1e-9999",
            "1e99999",
            "x",
            "",
            "1_000",
            "0x1f",
            "12345678901234567890.123456788",
        ),
        declared="numeric",
    ),
    TypeCase("numeric", ("1.50", "2.00"), ("1.5", "1.504", "2"), declared="numeric(10,2)"),
    TypeCase(
        "float8", ("1.5", "NaN", "Infinity", "-0", "1e300"), ("1.5", "nan", "0", "x", "1e999")
    ),
    TypeCase("float4", ("1.1", "NaN"), ("1.1", "1.10000002", "x")),
    TypeCase(
        "date",
        (
            "2026-01-02",
            "1969-12-31",
            "infinity",
            "-infinity",
            "0044-03-15 BC",
            "12026-01-02",
            "0004-02-29",
            "2000-02-29",
        ),
        (
            "2026-01-02",
            "infinity",
            "-infinity",
            "Jan 2 2026",
            "0044-03-15 BC",
            "0004-02-29",
            "2026-02-30",
            "0000-01-01",
            "0044-03-15",
            "20260102",
            "epoch",
            "x",
            "2026-1-2",
        ),
    ),
    TypeCase(
        "timestamp",
        _MOMENTS,
        (
            *_MOMENTS,
            "2026-01-02T03:04:05",
            "2026-01-02 03:04:05+05",
            "2026-01-02",
            "2026-01-02 24:00:00",
            "2026-01-02 03:04:60",
            "2026-01-02 03:04:05.1234567",
            "x",
        ),
    ),
    TypeCase(
        "timestamptz",
        _MOMENTS,
        (
            "2026-01-02T03:04:05Z",
            "2026-01-02 05:04:05.678901+02",
            "2026-01-02 03:04:05-0530",
            "2026-01-02 03:04:05+14:00",
            "2026-01-02 03:04:05+15:30",
            "2026-01-02 03:04:05+16",
            "infinity",
            "2026-01-02 03:04:05 Europe/Berlin",
            "2026-01-02",
            "2026-01-02 03:04:05",
            "2026-13-02T03:04:05Z",
            "x",
        ),
    ),
    TypeCase("time", ("03:04:05", "24:00:00"), ("03:04:05", "3:04:05", "x")),
    TypeCase("timetz", ("03:04:05+02", "01:04:05+00"), ("03:04:05+02",)),
    TypeCase("interval", ("1 day", "24:00:00"), ("1 day", "24 hours", "x")),
    TypeCase("inet", ("10.0.0.1/24", "10.0.0.1"), ("10.0.0.1", "10.0.0.1/24", "x")),
    TypeCase("jsonb", ('{"a": 1}', "1", "null"), ('{"a":1}', "1.0", "null", "{")),
    TypeCase("int4[]", ("{1,2}", "{}", "{NULL}"), ("{1,2}", "{ 1 , 2 }", "[0:1]={1,2}", "x")),
    TypeCase("pair", ("(1,x)", "(,)", "(1,)"), ("(1,x)", "(,)", "x")),
    TypeCase("int4range", ("[1,5)", "empty"), ("[1,4]", "empty", "x")),
    TypeCase('pg_catalog."bit"', ("1010", "0001"), ("1010", "1", "x"), declared="bit(4)"),
    TypeCase("money", ("$12.34",), ("12.34", "$1,000", "x")),
    TypeCase("oid", ("1",), ("1", "x")),
    # No equality operator: every comparison is refused, by PostgreSQL and so by us.
    TypeCase("json", ("{}",), ("{}",)),
    TypeCase("point", ("(1,2)",), ("(1,2)",), ("lt", "gte")),
)
