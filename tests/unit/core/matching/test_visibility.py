"""What is told about a change, case by case (`visibility.md` §1)."""

import pytest

from heliograph.core.matching.visibility import (
    DeleteVisibility,
    OldShown,
    Verdict,
    told_on_delete,
    told_on_insert,
    told_on_update,
    without_old_values,
)
from heliograph.core.replication.row_change import ChangeKind

YES, NO, UNDECIDED = Verdict.YES, Verdict.NO, Verdict.UNDECIDED


@pytest.mark.parametrize(("new", "is_told"), [(YES, True), (NO, False), (UNDECIDED, False)])
def test_insert_is_told_only_when_the_new_row_is_seen(new, is_told):
    told = told_on_insert(new)
    assert (told is not None) == is_told
    if told is not None:
        assert (told.kind, told.old) == (ChangeKind.INSERT, OldShown.NOTHING)


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        (YES, YES, (ChangeKind.UPDATE, OldShown.ALL, False)),
        (YES, NO, (ChangeKind.UPDATE, OldShown.KEY, False)),
        (YES, UNDECIDED, (ChangeKind.UPDATE, OldShown.KEY, False)),
        (NO, YES, (ChangeKind.DELETE, OldShown.KEY, True)),
        (UNDECIDED, YES, (ChangeKind.DELETE, OldShown.KEY, True)),
        (NO, NO, None),
        (UNDECIDED, NO, None),
    ],
)
def test_update_with_full_identity_tells_enter_update_and_leave(new, old, expected):
    told = told_on_update(new=new, old=old, old_is_full=True, row_security=True)
    assert (None if told is None else (told.kind, told.old, told.left_view)) == expected


@pytest.mark.parametrize(("new", "is_told"), [(YES, True), (NO, False), (UNDECIDED, False)])
@pytest.mark.parametrize(("row_security", "old"), [(True, OldShown.KEY), (False, OldShown.ALL)])
def test_update_without_full_identity_looks_at_the_new_row_alone(new, is_told, row_security, old):
    told = told_on_update(new=new, old=UNDECIDED, old_is_full=False, row_security=row_security)
    assert (None if told is None else told.old) == (old if is_told else None)


def test_where_rights_changed_with_the_row_the_key_is_all_that_is_told_of_the_old_one():
    updated = told_on_update(new=YES, old=YES, old_is_full=True, row_security=True)
    left = told_on_update(new=NO, old=YES, old_is_full=True, row_security=True)
    deleted = told_on_delete(
        policy=YES, filters=YES, old_is_full=True, row_security=True, setting=DeleteVisibility.AUTO
    )
    for told, kind in ((updated, ChangeKind.UPDATE), (deleted, ChangeKind.DELETE)):
        reduced = without_old_values(told)
        assert (reduced.kind, reduced.old, reduced.left_view) == (kind, OldShown.KEY, False)
    assert without_old_values(left) is left
    inserted = told_on_insert(YES)
    assert without_old_values(inserted) is inserted


def _deleted(**given):
    case = {
        "policy": YES,
        "filters": YES,
        "old_is_full": True,
        "row_security": True,
        "setting": DeleteVisibility.AUTO,
    }
    told = told_on_delete(**{**case, **given})
    return None if told is None else told.old


def test_delete_is_never_told_against_the_filter():
    for setting in DeleteVisibility:
        assert _deleted(filters=NO, setting=setting) is None
        assert _deleted(filters=UNDECIDED, setting=setting) is None


def test_delete_with_full_identity_is_judged_on_the_old_row():
    assert _deleted() is OldShown.ALL
    assert _deleted(policy=NO) is None
    assert _deleted(policy=NO, setting=DeleteVisibility.STRICT) is None


def test_delete_without_full_identity_tells_the_key_or_in_strict_nothing():
    assert _deleted(old_is_full=False) is OldShown.KEY
    assert _deleted(old_is_full=False, setting=DeleteVisibility.STRICT) is None


def test_compatible_delete_tells_the_key_even_to_those_who_never_saw_the_row():
    compatible = DeleteVisibility.COMPATIBLE
    assert _deleted(policy=NO, setting=compatible) is OldShown.KEY
    assert _deleted(row_security=False, setting=compatible) is OldShown.ALL
    assert _deleted(row_security=False, old_is_full=False, setting=compatible) is OldShown.KEY
