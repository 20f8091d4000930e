"""The index returns every group that may match, and visits no other."""

from dataclasses import replace

from hypothesis import given, strategies as st

from heliograph.core.matching.subscription_index import SubscriptionIndex
from heliograph.core.replication.relation import Relation, RelationColumn, ReplicaIdentity
from heliograph.core.replication.row_change import ChangeKind, RowChange, Unknown

RELATION = Relation(
    7,
    "public",
    "t",
    ReplicaIdentity.FULL,
    (RelationColumn("id", 23, -1, True), RelationColumn("org", 25, -1, True)),
)


class Group:
    pass


def changed(*, new=None, old=None, relation=RELATION):
    kind = ChangeKind.UPDATE if new and old else ChangeKind.INSERT if new else ChangeKind.DELETE
    return RowChange(kind, relation, 0, new, old, True)


def test_a_group_is_found_by_its_equality_value_only():
    index = SubscriptionIndex()
    one, two, rest = Group(), Group(), Group()
    index.add(7, one, ("org", "a"))
    index.add(7, two, ("org", "b"))
    index.add(7, rest, None)
    assert index.candidates(changed(new=("1", "a"))) == [rest, one]
    assert index.candidates(changed(new=("1", "c"))) == [rest]
    assert index.candidates(changed(new=("1", None))) == [rest]


def test_old_and_new_row_are_both_looked_up_and_equal_ones_once():
    index = SubscriptionIndex()
    one, two = Group(), Group()
    index.add(7, one, ("org", "a"))
    index.add(7, two, ("org", "b"))
    assert index.candidates(changed(new=("1", "a"), old=("1", "b"))) == [one, two]
    assert index.candidates(changed(new=("1", "c"), old=("1", "b"))) == [two]
    assert index.candidates(changed(new=("1", "a"), old=("1", "a"))) == [one]
    assert index.candidates(changed(new=("1", "a"), old=("1", "z"))) == [one]


def test_a_value_that_is_not_known_may_equal_anything():
    index = SubscriptionIndex()
    one, two = Group(), Group()
    index.add(7, one, ("org", "a"))
    index.add(7, two, ("org", "b"))
    assert index.candidates(changed(new=("1", Unknown.UNCHANGED_TOAST))) == [one, two]
    assert index.candidates(changed(old=("1", Unknown.NOT_SENT))) == []


def test_an_old_row_that_a_partition_does_not_send_may_concern_everybody():
    index = SubscriptionIndex()
    one, two, rest = Group(), Group(), Group()
    index.add(7, one, ("org", "a"))
    index.add(7, two, ("org", "b"))
    index.add(7, rest, None)
    partial = replace(RELATION, is_partial=True)
    old = ("1", Unknown.NOT_SENT)
    unknown = RowChange(ChangeKind.DELETE, partial, 0, None, old, old_is_full=False)
    assert index.candidates(unknown) == [rest, one, two]
    assert index.candidates(changed(old=("1", "a"), relation=partial)) == [rest, one]


def test_a_column_that_is_gone_makes_every_group_a_candidate():
    index = SubscriptionIndex()
    one = Group()
    index.add(7, one, ("org", "a"))
    narrow = Relation(7, "public", "t", ReplicaIdentity.FULL, RELATION.columns[:1])
    assert index.candidates(changed(new=("1",), relation=narrow)) == [one]


def test_removing_leaves_nothing_behind():
    index = SubscriptionIndex()
    one, two, rest = Group(), Group(), Group()
    index.add(7, one, ("org", "a"))
    index.add(7, two, ("org", "a"))
    index.add(7, rest, None)
    assert sorted(map(id, index.groups(7))) == sorted(map(id, (one, two, rest)))
    index.remove(7, one, ("org", "a"))
    assert index.candidates(changed(new=("1", "a"))) == [rest, two]
    index.remove(7, two, ("org", "a"))
    index.remove(7, rest, None)
    assert not index.has_table(7)
    index.remove(7, rest, None)
    assert index.groups(7) == []
    assert index.candidates(changed(new=("1", "a"))) == []


values = st.sampled_from(["a", "b", "c"])


@given(
    st.lists(st.tuples(st.sampled_from(["id", "org"]), values), max_size=12),
    st.tuples(values, values),
    st.none() | st.tuples(values, values),
)
def test_candidates_are_exactly_the_groups_whose_value_stands_in_either_row(terms, new, old):
    index = SubscriptionIndex()
    groups = [(Group(), term) for term in terms]
    for group, term in groups:
        index.add(7, group, term)
    found = index.candidates(changed(new=new, old=old))
    place = {"id": 0, "org": 1}
    expected = {
        id(group)
        for group, (column, value) in groups
        if new[place[column]] == value or (old is not None and old[place[column]] == value)
    }
    assert {id(group) for group in found} == expected
    assert len(found) == len(expected)


def test_a_table_without_groups_has_no_candidates_and_only_rest_needs_no_look_up():
    index = SubscriptionIndex()
    rest = Group()
    index.add(7, rest, None)
    assert index.candidates(changed(new=("1", "a"))) == [rest]
