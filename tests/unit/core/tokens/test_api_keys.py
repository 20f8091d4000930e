"""Opaque keys stand for roles and are not kept."""

import gc

import pytest

from heliograph.core.tokens.api_keys import ApiKeys, is_opaque_key


def test_a_key_stands_for_its_role():
    keys = ApiKeys({"sb_publishable_abc": "anon", "sb_secret_def": "service_role"})
    assert keys.role_of("sb_publishable_abc") == "anon"
    assert keys.role_of("sb_secret_def") == "service_role"
    for other in (
        "",
        "sb_secret_de",
        "sb_secret_def ",
        "sb_publishable_def",
        "SB_SECRET_DEF",
        "\ud800",
    ):
        assert keys.role_of(other) is None


@pytest.mark.security
def test_the_keys_themselves_are_not_kept_in_memory():
    planted = "sb_secret_" + "planted"
    keys = ApiKeys({planted: "service_role"})
    held = gc.get_referents(*list(keys._roles))
    assert planted not in held
    assert planted not in repr(vars(keys))


def test_keys_of_the_new_kind_are_told_by_their_beginning():
    assert is_opaque_key("sb_publishable_x")
    assert is_opaque_key("sb_temp_x")
    assert not is_opaque_key("eyJhbGciOi")
