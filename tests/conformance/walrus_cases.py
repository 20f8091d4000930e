"""What walrus, the change producer of Supabase Realtime, makes of a table's changes.

The situations follow walrus' regression suite (each case names the file it follows); tables,
statements and texts are ours, the resulting values are walrus'. Where we promise something else
the case says what ours is, and docs/reference/differences-from-walrus.md why.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Told:
    """One message expected: the ``data`` object without schema, table and time."""

    type: str
    columns: dict[str, str]
    record: dict[str, Any] | None = None
    old_record: dict[str, Any] | None = None
    errors: list[str] | None = None


@dataclass(frozen=True)
class Step:
    """One statement in a transaction of its own, and what the subscriber is told of it."""

    statement: str
    told: tuple[Told, ...] = ()


@dataclass(frozen=True)
class WalrusCase:
    """A table, one subscription to it, and changes.

    Attributes:
        follows: File of walrus' suite, without folder and suffix.
        setup: Statements that make the table.
        steps: Changes after the subscription exists.
        filter: Its filter.
        select: Its column selection.
        event: Its event.
        selectable: Columns that the role may read; None means all.
    """

    follows: str
    setup: str
    steps: tuple[Step, ...]
    filter: str = ""
    select: tuple[str, ...] | None = None
    event: str = "*"
    selectable: frozenset[str] | None = None
    table: str = "public.articles"


_ID = {"id": "int4"}
_ID_BODY = {"id": "int4", "body": "text"}
_PLAIN = "create table articles (id int primary key, body text)"
_FULL = f"{_PLAIN}; alter table articles replica identity full"
_WIDE = "create table articles (id int primary key, body text, extra text)"
_WIDE_FULL = f"{_WIDE}; alter table articles replica identity full"
_PAIR = "create table articles (a int, b char, body text, primary key (a, b))"
_PAIR_COLUMNS = {"a": "int4", "b": "bpchar", "body": "text"}
_LONG = "x" * 2_048

CASES: tuple[WalrusCase, ...] = (
    WalrusCase(
        "test_simple_insert",
        "create table articles (id int primary key)",
        (Step("insert into articles values (1)", (Told("INSERT", _ID, {"id": 1}),)),),
    ),
    WalrusCase(
        "test_simple_update",
        _PLAIN + "; insert into articles values (1, 'draft')",
        (
            Step(
                "update articles set body = 'final'",
                (Told("UPDATE", _ID_BODY, {"id": 1, "body": "final"}, {"id": 1}),),
            ),
        ),
    ),
    WalrusCase(
        "test_simple_delete",
        _PLAIN + "; insert into articles values (1, 'draft')",
        (Step("delete from articles", (Told("DELETE", _ID_BODY, None, {"id": 1}),)),),
    ),
    WalrusCase(
        "test_non_public_schema",
        "create schema office; create table office.articles (id int primary key)",
        (Step("insert into office.articles values (1)", (Told("INSERT", _ID, {"id": 1}),)),),
        table="office.articles",
    ),
    WalrusCase(
        "test_old_record_is_primary_key",
        _PAIR + "; insert into articles values (1, 'a', 'draft')",
        (
            Step(
                "update articles set a = 1",
                (
                    Told(
                        "UPDATE",
                        _PAIR_COLUMNS,
                        {"a": 1, "b": "a", "body": "draft"},
                        {"a": 1, "b": "a"},
                    ),
                ),
            ),
            Step(
                "update articles set a = 2",
                (
                    Told(
                        "UPDATE",
                        _PAIR_COLUMNS,
                        {"a": 2, "b": "a", "body": "draft"},
                        {"a": 1, "b": "a"},
                    ),
                ),
            ),
        ),
    ),
    WalrusCase(
        "test_old_record_replica_identity_full",
        f"{_PAIR}; alter table articles replica identity full;"
        "insert into articles values (1, 'a', 'draft')",
        (
            Step(
                "update articles set a = 1",
                (
                    Told(
                        "UPDATE",
                        _PAIR_COLUMNS,
                        {"a": 1, "b": "a", "body": "draft"},
                        {"a": 1, "b": "a", "body": "draft"},
                    ),
                ),
            ),
        ),
    ),
    WalrusCase(
        "test_delete_old_record_behavior",
        f"{_FULL}; insert into articles values (1, 'draft')",
        (
            Step(
                "delete from articles",
                (Told("DELETE", _ID_BODY, None, {"id": 1, "body": "draft"}),),
            ),
        ),
    ),
    WalrusCase(
        "test_column_permissions_hide_columns",
        _PLAIN,
        (Step("insert into articles values (1, 'hidden')", (Told("INSERT", _ID, {"id": 1}),)),),
        selectable=frozenset({"id"}),
    ),
    WalrusCase(
        "test_unchanged_toast",
        f"{_WIDE_FULL}; alter table articles alter extra set storage external;"
        f"insert into articles values (1, 'draft', '{_LONG}')",
        (
            Step(
                "update articles set body = 'final'",
                (
                    Told(
                        "UPDATE",
                        {**_ID_BODY, "extra": "text"},
                        {"id": 1, "body": "final", "extra": _LONG},
                        {"id": 1, "body": "draft", "extra": _LONG},
                    ),
                ),
            ),
        ),
    ),
    WalrusCase(
        "test_unchanged_toast",
        f"{_WIDE}; alter table articles alter extra set storage external;"
        f"insert into articles values (1, 'draft', '{_LONG}')",
        (
            Step(
                "update articles set body = 'final'",
                (
                    Told(
                        "UPDATE",
                        {**_ID_BODY, "extra": "text"},
                        {"id": 1, "body": "final"},
                        {"id": 1},
                    ),
                ),
            ),
        ),
    ),
    WalrusCase(
        "test_error_payload_too_large",
        f"{_PLAIN}; insert into articles values (1)",
        (
            Step(
                "update articles set body = repeat('x', 5 * 1024 * 1024)",
                (
                    Told(
                        "UPDATE",
                        _ID_BODY,
                        {"id": 1},
                        {"id": 1},
                        ["Error 413: Payload Too Large"],
                    ),
                ),
            ),
        ),
    ),
    WalrusCase(
        "test_select_columns_insert",
        _WIDE,
        (
            Step(
                "insert into articles values (1, 'draft', 'more')",
                (Told("INSERT", _ID_BODY, {"id": 1, "body": "draft"}),),
            ),
        ),
        select=("body",),
    ),
    WalrusCase(
        "test_select_columns_update",
        f"{_WIDE_FULL}; insert into articles values (1, 'draft', 'more')",
        (
            Step(
                "update articles set body = 'final', extra = 'else'",
                (Told("UPDATE", _ID_BODY, {"id": 1, "body": "final"}, {"id": 1, "body": "draft"}),),
            ),
        ),
        select=("body",),
    ),
    WalrusCase(
        "test_select_columns_delete",
        f"{_WIDE_FULL}; insert into articles values (1, 'draft', 'more')",
        (
            Step(
                "delete from articles",
                (Told("DELETE", _ID_BODY, None, {"id": 1, "body": "draft"}),),
            ),
        ),
        select=("body",),
    ),
    WalrusCase(
        "test_select_columns_replica_identity_default",
        f"{_WIDE}; insert into articles values (1, 'draft', 'more')",
        (
            Step(
                "update articles set body = 'final', extra = 'else'",
                (Told("UPDATE", _ID_BODY, {"id": 1, "body": "final"}, {"id": 1}),),
            ),
            Step("delete from articles", (Told("DELETE", _ID_BODY, None, {"id": 1}),)),
        ),
        select=("body",),
    ),
    WalrusCase(
        "test_select_columns_filter_not_in_select",
        _WIDE,
        (
            Step(
                "insert into articles values (1, 'draft', 'wanted')",
                (Told("INSERT", _ID_BODY, {"id": 1, "body": "draft"}),),
            ),
            Step("insert into articles values (2, 'draft', 'unwanted')"),
        ),
        filter="extra=eq.wanted",
        select=("body",),
    ),
    WalrusCase(
        "test_integration_filters",
        _FULL,
        (
            Step(
                "insert into articles values (1, 'wanted')",
                (Told("INSERT", _ID_BODY, {"id": 1, "body": "wanted"}),),
            ),
            Step("insert into articles values (2, 'other')"),
            Step(
                "delete from articles",
                (Told("DELETE", _ID_BODY, None, {"id": 1, "body": "wanted"}),),
            ),
        ),
        filter="body=eq.wanted",
    ),
    WalrusCase(
        "test_integration_in_filter",
        _FULL,
        (
            Step(
                "insert into articles values (1, 'b')",
                (Told("INSERT", _ID_BODY, {"id": 1, "body": "b"}),),
            ),
            Step("insert into articles values (2, 'd')"),
        ),
        filter="body=in.(a,b,c)",
    ),
    WalrusCase(
        "test_integration_in_filter",
        _FULL,
        (Step("insert into articles values (1, 'b')"),),
        filter="body=in.()",
    ),
    WalrusCase(
        "test_integration_in_uuid_filter",
        "create table articles (id int primary key, code uuid)",
        (
            Step(
                "insert into articles values (1, '1b4e28ba-2fa1-11d2-883f-0016d3cca427')",
                (
                    Told(
                        "INSERT",
                        {"id": "int4", "code": "uuid"},
                        {"id": 1, "code": "1b4e28ba-2fa1-11d2-883f-0016d3cca427"},
                    ),
                ),
            ),
        ),
        filter="code=in.(1B4E28BA-2FA1-11D2-883F-0016D3CCA427,6fa459ea-ee8a-3ca4-894e-db77e160355e)",
    ),
    WalrusCase(
        "issue_40_quoted_regtype",
        """create type "Signal Color" as enum ('RED', 'GREEN');
           create table articles (id int primary key, color "Signal Color")""",
        (
            Step(
                "insert into articles values (1, 'RED'), (2, 'GREEN')",
                (
                    Told(
                        "INSERT",
                        {"id": "int4", "color": "Signal Color"},
                        {"id": 1, "color": "RED"},
                    ),
                ),
            ),
        ),
        filter="color=eq.RED",
    ),
    WalrusCase(
        "issue_50_delete_filters",
        f"{_PLAIN}; insert into articles values (1, 'b'), (2, 'c')",
        (Step("delete from articles"),),
        filter="body=eq.b",
    ),
    WalrusCase(
        "issue_50_delete_filters",
        f"{_PLAIN}; insert into articles values (1, 'b'), (2, 'c')",
        (Step("delete from articles", (Told("DELETE", _ID_BODY, None, {"id": 2}),)),),
        filter="id=eq.2",
    ),
    WalrusCase(
        "issue_50_delete_filters",
        f"{_FULL}; insert into articles values (1, 'b'), (2, 'c')",
        (
            Step(
                "delete from articles",
                (Told("DELETE", _ID_BODY, None, {"id": 1, "body": "b"}),),
            ),
        ),
        filter="body=eq.b",
    ),
    WalrusCase(
        "issue_55_null_passes_filters",
        "create table articles (id int primary key, page int)",
        (
            Step("insert into articles values (1, 1)"),
            Step(
                "insert into articles values (2, 5)",
                (Told("INSERT", {"id": "int4", "page": "int4"}, {"id": 2, "page": 5}),),
            ),
            Step("insert into articles values (3, null)"),
        ),
        filter="page=eq.5",
    ),
    WalrusCase(
        "test_insert_action_filter",
        _PLAIN,
        (
            Step(
                "insert into articles values (1)",
                (Told("INSERT", _ID_BODY, {"id": 1, "body": None}),),
            ),
            Step("update articles set body = 'x'"),
            Step("delete from articles"),
        ),
        event="INSERT",
    ),
    WalrusCase(
        "test_update_action_filter",
        _PLAIN,
        (
            Step("insert into articles values (1)"),
            Step(
                "update articles set body = 'x'",
                (Told("UPDATE", _ID_BODY, {"id": 1, "body": "x"}, {"id": 1}),),
            ),
            Step("delete from articles"),
        ),
        event="UPDATE",
    ),
    WalrusCase(
        "test_delete_action_filter",
        _PLAIN,
        (
            Step("insert into articles values (1)"),
            Step("delete from articles", (Told("DELETE", _ID_BODY, None, {"id": 1}),)),
        ),
        event="DELETE",
    ),
)

#: Two answers of walrus' unit test of operators: (type, operator, value, constant, answer).
OPERATORS: tuple[tuple[str, str, str | None, str, bool | None], ...] = (
    ("text", "eq", "k", "k", True),
    ("text", "eq", "k", "m", False),
    ("text", "neq", "k", "k", False),
    ("text", "neq", "k", "m", True),
    ("text", "lt", "k", "m", True),
    ("text", "lt", "m", "m", False),
    ("text", "lte", "m", "k", False),
    ("text", "lte", "m", "m", True),
    ("text", "gt", "m", "k", True),
    ("text", "gt", "k", "m", False),
    ("text", "gte", "k", "m", False),
    ("text", "gte", "m", "m", True),
    ("int8", "eq", "1", "1", True),
    ("int8", "eq", "2", "1", False),
    ("int8", "eq", None, "2", None),
    (
        "uuid",
        "eq",
        "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
        "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
        True,
    ),
    (
        "uuid",
        "eq",
        "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
        "6fa459ea-ee8a-3ca4-894e-db77e160355e",
        False,
    ),
    ("int8", "in", "2", "(1,2,3)", True),
    ("int8", "in", "4", "(1,2,3)", False),
)
