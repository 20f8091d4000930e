import contextlib

import pytest
from hypothesis import example, given, strategies as st

from heliograph.core.channels.join_config import parse_join, read_token, read_token_refresh
from heliograph.core.matching.binding_parameters import parse_binding_parameters
from heliograph.core.matching.position_request import read_position_request
from heliograph.errors import RemoteProtocolError, SubscriptionRefusedError
from heliograph.limits import (
    BINDINGS_BYTES_PER_CHANNEL_MAX,
    BINDINGS_PER_CHANNEL_MAX,
    SELECT_COLUMNS_MAX,
    TOKEN_BYTES_MAX,
)

entries = st.dictionaries(st.sampled_from(["event", "schema", "table", "filter"]), st.text())


def parse(changes, **config):
    return parse_join("room", {"config": {"postgres_changes": changes, **config}})


@given(st.lists(entries, max_size=8))
def test_ids_are_small_positive_and_equal_exactly_for_equal_entries(changes):
    bindings = parse(changes).bindings
    assert [binding.parameters for binding in bindings] == changes
    assert all(0 < binding.id < 2**27 for binding in bindings)
    for one in bindings:
        for other in bindings:
            assert (one.id == other.id) == (one.parameters == other.parameters)


def test_ids_do_not_depend_on_the_order_of_keys_nor_on_the_connection():
    first = parse([{"event": "*", "schema": "public"}]).bindings[0]
    second = parse([{"schema": "public", "event": "*"}]).bindings[0]
    assert first.id == second.id


def test_entries_that_collide_get_different_ids(monkeypatch):
    monkeypatch.setattr("heliograph.core.channels.join_config._ID_MAX", 2)
    bindings = parse([{"table": "a"}, {"table": "b"}, {"table": "a"}]).bindings
    assert {binding.id for binding in bindings} == {1, 2}
    assert bindings[0].id == bindings[2].id != bindings[1].id


def test_equal_entries_are_one_distinct_binding():
    config = parse([{"table": "a"}, {"table": "b"}, {"table": "a"}])
    assert len(config.bindings) == 3
    assert [each.parameters for each in config.distinct_bindings()] == [
        {"table": "a"},
        {"table": "b"},
    ]


def test_the_part_that_is_kept_has_no_echo_and_each_id_once():
    entry = {"event": "*", "table": "a", "x": {"deep": [1.5] * 9}}
    config = parse([entry, {"table": "b", "select": ["id"]}, entry], private=True)
    kept = config.without_echo()
    assert [(each.id, each.parameters) for each in kept.bindings] == [
        (config.bindings[0].id, {"event": "*", "table": "a"}),
        (config.bindings[1].id, {"table": "b", "select": ["id"]}),
    ]
    assert kept.is_private


def test_a_value_of_the_wrong_type_is_kept_without_its_content():
    big = [1.5] * 10_000
    (kept,) = parse([{"table": {"a": big}, "schema": 5, "select": big}]).without_echo().bindings
    assert kept.parameters == {
        "schema": False,
        "table": False,
        "select": [None] * (SELECT_COLUMNS_MAX + 1),
    }


any_value = st.none() | st.booleans() | st.text(max_size=3) | st.lists(st.none() | st.text())


@given(
    st.dictionaries(
        st.sampled_from(
            ["event", "schema", "table", "filter", "select", "positions", "since", "x"]
        ),
        any_value | st.sampled_from(["INSERT", "id=eq.1", "orders", "true", "p" * 300]),
    )
    | st.just({"table": "t", "select": ["a"] * (SELECT_COLUMNS_MAX + 1)})
    | st.just({"table": "t", "positions": True, "since": "AQ" * 40})
)
@example({"table": "t", "positions": True, "since": "a position"})
def test_what_is_kept_subscribes_to_what_was_asked_for(entry):
    def understood(parameters):
        parsed = None
        with contextlib.suppress(SubscriptionRefusedError):
            parsed = parse_binding_parameters(parameters)
        return parsed, read_position_request([parameters])

    (kept,) = parse([entry]).without_echo().bindings
    assert understood(kept.parameters) == understood(entry)


def test_absent_and_null_parts_are_the_defaults():
    for config in ({}, None, {"postgres_changes": None}, {"postgres_changes": [None]}):
        parsed = parse_join("room", {"config": config})
        assert (parsed.bindings, parsed.is_private, parsed.is_legacy) == ((), False, False)


def test_what_the_official_clients_send_is_understood():
    config = {
        "broadcast": {"ack": False, "self": False},
        "presence": {"key": "", "enabled": False},
        "private": False,
        "postgres_changes": [],
    }
    assert not parse_join("room", {"config": config, "access_token": None}).is_private


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, False), (True, True), ("true", True), ("FALSE", False), ("True", True)],
)
def test_booleans_may_be_strings_in_any_case(value, expected):
    assert parse([], private=value).is_private is expected


@pytest.mark.parametrize(
    ("sub_topic", "parameters"),
    [
        ("public", {"event": "*", "schema": "public"}),
        ("public:orders", {"event": "*", "schema": "public", "table": "orders"}),
        ("*", {"event": "*", "schema": "*"}),
        ("public:", {"event": "*", "schema": "public"}),
        (
            "public:orders:name=eq.a:b",
            {"event": "*", "schema": "public", "table": "orders", "filter": "name=eq.a:b"},
        ),
    ],
)
def test_a_join_without_config_subscribes_to_what_its_topic_says(sub_topic, parameters):
    config = parse_join(sub_topic, {})
    assert config.is_legacy
    assert [binding.parameters for binding in config.bindings] == [parameters]


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "x",
        {"config": 1},
        {"config": {"private": 3}},
        {"config": {"private": "maybe"}},
        {"config": {"postgres_changes": {}}},
        {"config": {"postgres_changes": ["x"]}},
        {"config": {"postgres_changes": [{}] * (BINDINGS_PER_CHANNEL_MAX + 1)}},
        {"config": {"postgres_changes": [{"x": "x" * BINDINGS_BYTES_PER_CHANNEL_MAX}]}},
        {"config": {"postgres_changes": [{"x": "x" * 1000}] * BINDINGS_PER_CHANNEL_MAX}},
        {"config": {}, "access_token": 5},
        {"config": {}, "access_token": "x" * (TOKEN_BYTES_MAX + 1)},
    ],
)
def test_what_can_not_be_understood_is_refused_with_a_code(payload):
    with pytest.raises(RemoteProtocolError, match=r"^(InvalidJoinPayload|MalformedJWT): "):
        parse_join("room", payload)


def test_the_legacy_token_wins_and_keys_are_not_tokens():
    joined = parse_join("room", {"config": {}, "access_token": "a", "user_token": "b"})
    assert joined.token == "b"
    assert [read_token(value) for value in (None, "", "sb_publishable_x", "jwt")] == [
        *(None, None, None),
        "jwt",
    ]


def test_a_refresh_reads_the_same_field():
    assert read_token_refresh({"access_token": "jwt", "version": "x"}) == "jwt"
    assert read_token_refresh({}) is None
    with pytest.raises(RemoteProtocolError):
        read_token_refresh("jwt")
