"""What a table's description answers."""

from dataclasses import replace

import pytest

from fixtures.tables import builtin, column, domain_over, enum_type, table_of
from heliograph.core.matching.table_description import TypeKind, is_listed


def test_a_column_is_found_by_its_exact_name() -> None:
    table = table_of(column("id", "int8"), column("Name", "text"))
    found = table.column("Name")
    assert found is not None
    assert (found.type_name, found.type_oid) == ("text", found.type.oid)
    assert table.column("name") is None


def test_a_domain_over_a_domain_resolves_to_the_type_below() -> None:
    inner = domain_over(builtin("text"), "inner_domain")
    outer = domain_over(inner, "outer_domain")
    assert outer.resolved == builtin("text")
    assert builtin("text").resolved == builtin("text")


def test_only_types_of_the_catalog_schema_are_builtin() -> None:
    assert builtin("int4").is_builtin
    assert not enum_type().is_builtin
    assert enum_type().kind is TypeKind.ENUM


def test_a_column_is_streamed_unless_it_is_generated_or_left_out_of_the_publication() -> None:
    plain, made = column("a", "int4"), replace(column("b", "int4"), is_generated=True)
    table = table_of(plain, made)
    assert table.is_streamed(plain)
    assert not table.is_streamed(made)
    listed = replace(table, published_columns=frozenset({"b"}))
    assert not listed.is_streamed(plain)
    assert listed.is_streamed(made)


def test_tables_are_published_alike_if_columns_rows_and_operations_are_the_same() -> None:
    table = table_of(column("a", "int4"))
    assert table.is_published_like(replace(table, row_security=True))
    assert not table.is_published_like(replace(table, is_published=False))
    assert not table.is_published_like(replace(table, published_columns=frozenset({"a"})))
    assert not table.is_published_like(replace(table, row_filter="(a > 5)"))
    assert not table.is_published_like(replace(table, operations=frozenset({"insert"})))


@pytest.mark.parametrize(
    ("schema", "listed", "expected"),
    [
        ("public", ["t"], True),
        ("public", ["public.t"], True),
        ("public", ["*"], True),
        ("public", ["shop.t", "T"], False),
        ("shop", ["t"], False),
        ("shop", ["shop.t"], True),
        ("shop", [], False),
    ],
)
def test_a_table_is_listed_by_its_name(schema, listed, expected):
    assert is_listed(schema, "t", listed) is expected


def test_a_publication_that_was_altered_and_altered_back_is_another_one() -> None:
    table = table_of(column("id", "int4"))
    assert table.is_published_like(replace(table, name="moved"))
    assert not table.is_published_like(replace(table, publication_version="later"))
    assert table.name_in_full == ("public", "things")


def test_other_columns_are_no_change_of_the_publication_itself():
    table = replace(table_of(column("id", "int4")), published_columns=frozenset({"id"}))
    assert not table.was_republished(replace(table, published_columns=frozenset({"id", "body"})))
    assert table.was_republished(replace(table, publication_version="2"))
