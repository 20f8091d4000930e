"""Single values as their JSON shows them; tests/oracle compares them with PostgreSQL's."""

import msgspec
import pytest

from fixtures.tables import array_of, builtin, composite_of, domain_over, enum_type
from heliograph.core.matching.json_values import presenter_of
from heliograph.core.matching.table_description import TypeDescription, TypeKind


def _shown(described: TypeDescription | str, text: str) -> str:
    kind = builtin(described) if isinstance(described, str) else described
    present = presenter_of(kind)
    return msgspec.json.encode(text if present is None else present(text)).decode()


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("int8", "9007199254740993", "9007199254740993"),
        ("numeric", "12345678901234567890.5000000000", "12345678901234567890.5000000000"),
        ("numeric", "NaN", "null"),
        ("float8", "-Infinity", "null"),
        ("float8", "1.5e+20", "150000000000000000000"),
        ("float8", "1e-07", "0.0000001"),
        ("float4", "-0", "0"),
        ("float4", "1.1", "1.1"),
        ("bool", "t", "true"),
        ("text", 'q"ä', '"q\\"ä"'),
        ("bpchar", "x   ", '"x"'),
        ("bytea", "\\xdeadbeef", '"deadbeef"'),
        ("date", "2026-01-02", '"2026-01-02"'),
        ("timestamp", "2026-01-02 03:04:05", '"2026-01-02T03:04:05"'),
        ("timestamp", "-infinity", '"-infinity"'),
        ("timestamptz", "2026-01-02 03:04:05.6+00", '"2026-01-02T03:04:05.6+00:00"'),
        ("timestamptz", "2026-01-02 03:04:05+05:30", '"2026-01-02T03:04:05+05:30"'),
        ("timestamptz", "0044-03-15 10:00:00+00 BC", '"0044-03-15T10:00:00+00:00 BC"'),
        ("timestamptz", "infinity", '"infinity"'),
        ("jsonb", '{"a": [1, 2]}', '{"a": [1, 2]}'),
        ("json", '{"a":\r\n1}', '{"a":  1}'),
        (
            "json",
            '"\\ud83d\\ude00 \\ud83d \\ude00 \\\\ud800"',
            '"\\ud83d\\ude00 \\ufffd \\ufffd \\\\ud800"',
        ),
        ("bit", "1010", '"1010"'),
    ],
)
def test_columns(kind: str, text: str, expected: str) -> None:
    assert _shown(kind, text) == expected


def test_elements_and_attributes_follow_to_jsonb() -> None:
    numbers = array_of(builtin("numeric"))
    assert _shown(numbers, "{1.50,NaN,NULL}") == '[1.50,"NaN",null]'
    assert _shown(array_of(builtin("float8")), "{1e+20,Infinity}") == (
        '[100000000000000000000,"Infinity"]'
    )
    assert _shown(array_of(builtin("bytea")), '{"\\\\xde"}') == '["\\\\xde"]'
    assert _shown(array_of(builtin("text")), "{{a},{b}}") == '[["a"],["b"]]'
    assert _shown(array_of(builtin("text")), "{a,NULL}") == '["a",null]'
    assert _shown(array_of(builtin("box"), ";"), "{(1,1),(0,0);(2,2),(0,0)}") == (
        '["(1,1),(0,0)","(2,2),(0,0)"]'
    )


def test_composites_are_objects_by_attribute() -> None:
    inner = composite_of(n=builtin("int4"), t=builtin("text"))
    outer = composite_of(p=inner, list=array_of(inner), t=builtin("text"))
    assert _shown(outer, '("(1,x)","{""(2,)""}",)') == (
        '{"p":{"n":1,"t":"x"},"list":[{"n":2,"t":null}],"t":null}'
    )
    assert _shown(composite_of(), "()") == "{}"


def test_domains_enums_and_types_of_extensions() -> None:
    assert _shown(domain_over(domain_over(builtin("bytea"))), "\\xde") == '"de"'
    assert _shown(domain_over(array_of(builtin("int4"))), "{1}") == "[1]"
    assert _shown(enum_type(), "Very Happy") == '"Very Happy"'
    assert _shown(TypeDescription(9, "public", "numeric", "x"), "1") == '"1"'


def test_vectors_of_the_catalog_are_arrays() -> None:
    vector = TypeDescription(
        22, "pg_catalog", "int2vector", "int2vector", TypeKind.ARRAY, element=builtin("int2")
    )
    assert _shown(vector, "1 2") == "[1,2]"
