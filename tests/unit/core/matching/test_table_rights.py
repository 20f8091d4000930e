import pytest

from heliograph.core.matching.table_rights import TableRights, combine_policies


@pytest.mark.parametrize(
    ("permissive", "restrictive", "expected"),
    [
        ([], [], "false"),
        ([], ["a"], "false"),
        (["a"], [], "a"),
        (["a", "b"], [], "(a) OR (b)"),
        (["a", "true"], [], "true"),
        (["a", "true"], ["r"], "r"),
        (["a"], ["false"], "false"),
        (["a", "b"], ["r", "s"], "((a) OR (b)) AND (r) AND (s)"),
    ],
)
def test_any_permissive_and_every_restrictive_policy_must_hold(permissive, restrictive, expected):
    assert combine_policies(permissive, restrictive) == expected


def rights(policy):
    return TableRights("r", 1, True, frozenset(), False, policy is not None, policy, None, False)


def test_rights_tell_what_needs_no_judgement():
    assert rights(None).shows_all
    assert rights("true").shows_all
    assert rights("false").shows_none
    assert not rights("a").shows_all
    assert not rights("a").shows_none
