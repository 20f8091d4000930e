"""What checks the soak notices whatever is wrong: an event missing, twice, elsewhere, altered."""

import random

import pytest

from soak.keeper import ByKey, Change, Keeper
from soak.ledger import SLACK_COMMITS, LawBrokenError, Ledger
from soak.rounds import differences
from soak.schema import USERS, Shown, View

ALL = View(None, (Shown("notes"), Shown("tasks"), Shown("things")))
ORG = 7
OF_USER = View(USERS[0], (Shown("notes"), Shown("tasks")))
OF_ORG = View(None, (Shown("notes", "org", (ORG,)),))


def note(key, version=0, *, org=ORG, **more):
    return {"id": key, "org": org, "v": version, "began": 1, "body": "b", "secret": "s"} | more


def seen_by_user(row):
    return {name: row[name] for name in OF_USER.columns("notes")}


def inserted(row, table="notes"):
    return Change("INSERT", table, row)


def updated(old, new, table="notes"):
    return Change("UPDATE", table, new, old)


def deleted(old, table="notes"):
    return Change("DELETE", table, None, old)


def commit(number, changed=None):
    return Change("INSERT", "commits", {"n": number, "began": 1, "writer": 1, "changed": changed})


def keeper_of(view=ALL, *, members=((USERS[0], ORG),)):
    ledger = Ledger(1_000)
    ledger.rights_from(0, members, "members")
    keeper = Keeper(view, ledger)
    keeper.loaded({part.table: {} for part in view.parts}, 0)
    return keeper


def tell(keeper, *changes):
    for change in changes:
        keeper.told(change)


def broken_by(keeper, *changes):
    with pytest.raises(LawBrokenError) as caught:
        tell(keeper, *changes)
    return caught.value.kind


def test_what_is_right_is_taken():
    keeper = keeper_of()
    tell(keeper, inserted(note(1)), inserted(note(2)), commit(1, 2))
    tell(keeper, updated(note(1), note(1, 3)), deleted(note(2)), commit(2, 2))
    assert (keeper.rows["notes"], keeper.applied, keeper.events) == ({1: note(1, 3)}, 2, 6)


def test_keys_may_be_swapped_within_a_transaction():
    keeper = keeper_of()
    tell(keeper, inserted(note(1)), inserted(note(2)), commit(1))
    tell(keeper, updated(note(1), note(2, 1)), updated(note(2), note(1, 1)), commit(2))
    assert keeper.rows["notes"] == {1: note(1, 1), 2: note(2, 1)}


WRONG = [
    ("lost", [commit(2)]),
    ("lost", [inserted(note(1)), commit(1, 2)]),
    ("lost", [updated(note(1), note(1, 1)), commit(1)]),
    ("lost", [deleted(note(1)), commit(1)]),
    ("lost", [updated({"id": 1}, {"id": 1, "v": 1}, "things"), commit(1)]),
    ("duplicated", [commit(1), commit(1)]),
    ("duplicated", [inserted(note(1)), inserted(note(2)), commit(1, 1)]),
    ("duplicated", [inserted(note(1)), commit(1), inserted(note(1)), commit(2)]),
    ("duplicated", [inserted(note(1)), commit(1), updated({"id": 1}, note(1, 1)), commit(2)]),
    ("lost", [inserted(note(1)), commit(1), updated(note(1, 1), note(1, 2)), commit(2)]),
    ("reordered", [inserted(note(1, 3)), commit(1), updated(note(1, 1), note(1, 2)), commit(2)]),
    ("reordered", [Change("UPDATE", "commits", {"n": 1}, {"n": 1})]),
    ("leaked", [inserted({"id": 1}), commit(1)]),
]


@pytest.mark.parametrize(("kind", "changes"), WRONG, ids=range(len(WRONG)))
def test_what_can_not_be_right_is_named(kind, changes):
    assert broken_by(keeper_of(), *changes) == kind


def test_an_older_version_of_a_row_whose_old_one_is_unknown_is_named():
    keeper = keeper_of()
    thing = {"id": 1, "shelf": 1, "v": 5, "began": 1, "body": "b"}
    tell(keeper, inserted(thing, "things"), commit(1))
    older = updated({"id": 1}, thing | {"v": 4}, "things")
    assert broken_by(keeper, older, commit(2)) == "reordered"


@pytest.mark.parametrize(
    ("view", "row"),
    [
        (OF_USER, note(1)),
        (OF_USER, seen_by_user(note(1, org=ORG + 1))),
        (OF_USER, seen_by_user(note(1, org=0))),
        (OF_ORG, note(1, org=ORG + 1)),
    ],
    ids=["column", "other organization", "hidden organization", "filter"],
)
def test_what_may_not_be_seen_is_named(view, row):
    assert broken_by(keeper_of(view), inserted(row), commit(1)) == "leaked"


def test_rights_count_as_they_were_at_the_commit():
    ledger = Ledger(1_000)
    ledger.rights_from(0, [], "members")
    ledger.rights_from(2, [(USERS[0], ORG)], "members")
    ledger.rights_from(3, [], "members_or_open")
    row, is_open = seen_by_user(note(1)), seen_by_user(note(2, org=29))
    seen = [ledger.may_see(USERS[0], "notes", each, n) for each in (row, is_open) for n in range(5)]
    assert seen == [False, False, True, False, False, False, False, False, True, True]


def test_a_load_may_be_newer_than_the_position_but_never_older():
    keeper = keeper_of()
    tell(keeper, commit(1))
    keeper.loaded({"notes": {1: note(1)}, "tasks": {}, "things": {}}, 3)
    tell(keeper, inserted(note(1)), commit(2), commit(3), updated(note(1), note(1, 1)), commit(4))
    assert keeper.rows["notes"] == {1: note(1, 1)}
    keeper.loaded({"notes": {}, "tasks": {}, "things": {}}, 5)
    assert broken_by(keeper, commit(7)) == "lost"


def test_a_load_says_nothing_of_how_far_the_stream_is():
    keeper = keeper_of()
    tell(keeper, commit(1))
    keeper.loaded({"notes": {}, "tasks": {}, "things": {}}, 9)
    assert (keeper.streamed, keeper.followed) == (1, 9)
    tell(keeper, commit(2))
    assert (keeper.streamed, keeper.followed) == (2, 2)


def test_what_was_told_before_a_load_is_not_told_twice_behind_it():
    keeper = keeper_of()
    keeper.loaded({"notes": {}, "tasks": {}, "things": {}}, 3)
    assert broken_by(keeper, commit(2), commit(2)) == "duplicated"


# --- any history, with any one mistake in it --------------------------------------------------


def history(chance, commits=12):
    """Return drawn transactions as a client sees them, and the rows in the end."""
    rows, told = {}, []
    for number in range(1, commits + 1):
        changes = []
        for key in chance.sample(range(6), chance.randint(1, 4)):
            old = rows.get(key)
            if old is None:
                rows[key] = note(key, org=chance.randrange(3, 9))
                changes.append(inserted(rows[key]))
            elif chance.random() < 0.7:
                rows[key] = old | {"v": old["v"] + 1}
                changes.append(updated(old, rows[key]))
            else:
                changes.append(deleted(rows.pop(key)))
        told.append([*changes, commit(number, len(changes))])
    return told, rows


def without_one(chance, told):
    del chance.choice(told)[0]


def with_one_twice(chance, told):
    group = chance.choice(told)
    group.insert(0, group[0])


def without_a_transaction(chance, told):
    # The last one would be no mistake yet: a settled round waits for it.
    del told[chance.randrange(len(told) - 1)]


def with_a_transaction_twice(chance, told):
    place = chance.randrange(len(told))
    told.insert(chance.randint(place, len(told)), told[place])


def with_two_changed_places(chance, told):
    place = chance.randrange(len(told) - 1)
    told[place], told[place + 1] = told[place + 1], told[place]


def with_an_altered_value(chance, told):
    group = chance.choice([group for group in told if any(c.record for c in group[:-1])])
    place = chance.choice([at for at, change in enumerate(group[:-1]) if change.record])
    change = group[place]
    altered = change.record | {"body": "another"}
    group[place] = Change(change.type, change.table, altered, change.old_record)


MISTAKES = [
    without_one,
    with_one_twice,
    without_a_transaction,
    with_a_transaction_twice,
    with_two_changed_places,
    with_an_altered_value,
]


def is_right(told, rows, view=ALL):
    keeper = keeper_of(view)
    try:
        for group in told:
            tell(keeper, *group)
    except LawBrokenError:
        return False
    shown = {"notes": rows, "tasks": {}, "things": {}}
    return not differences(keeper.rows, shown)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_no_mistake_in_any_history_goes_unnoticed(mistake):
    for seed in range(200):
        chance = random.Random(seed)
        told, rows = history(chance)
        assert is_right(told, rows)
        mistake(chance, told)
        assert not is_right(told, rows), seed


def test_who_applies_by_key_is_led_back_by_an_older_change_and_forward_again():
    keeper = ByKey(ALL, Ledger(1_000))
    keeper.loaded({"notes": {1: note(1, 2)}, "tasks": {}, "things": {}}, 3)
    tell(keeper, inserted(note(1)), commit(1))
    assert keeper.rows["notes"] == {1: note(1)}
    tell(keeper, updated(note(1), note(1, 1)), commit(2), updated(note(1, 1), note(1, 2)))
    tell(keeper, commit(3), updated({"id": 1}, note(2, 3)), commit(4))
    assert (keeper.rows["notes"], keeper.applied) == ({2: note(2, 3)}, 4)


# --- what explains a resync -------------------------------------------------------------------


def test_only_what_was_done_explains_a_resync():
    ledger = Ledger(1_000)
    never = {"heard_s": 1e12, "user": USERS[0]}
    assert not ledger.is_explained("rights_changed", seen=0, **never)
    with ledger.cause("membership"):
        pass
    assert ledger.is_explained("rights_changed", seen=10 * SLACK_COMMITS, **never)
    ledger.everybody_followed()
    assert ledger.is_explained("rights_changed", seen=SLACK_COMMITS, **never)
    assert not ledger.is_explained("rights_changed", seen=SLACK_COMMITS + 1, **never)
    assert not ledger.is_explained("epoch_changed", seen=0, **never)
    assert not ledger.is_explained("position_not_valid", seen=0, **never)
    with ledger.cause("slot_dropped"):
        assert ledger.is_explained("epoch_changed", seen=20, **never)


def test_a_position_expires_only_behind_the_ring():
    ledger = Ledger(1_000, committed=2_000)
    late = {"heard_s": 1e12, "user": None}
    assert not ledger.is_explained("position_expired", seen=1_500, **late)
    assert ledger.is_explained("position_expired", seen=900, **late)
