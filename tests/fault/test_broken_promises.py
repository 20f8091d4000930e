"""The judge of the fault tests itself: it complains about each kind of broken promise."""

import pytest

from fixtures.numbered_writer import Change, NumberedWriter
from fixtures.raw_client import ALICE, BOB
from fixtures.row_keeper import RowKeeper, Stretch, Viewer, broken_promises

#: Number, transaction, row, owner before and after.
CHANGES = [
    Change(1, 1, 1, None, ALICE),
    Change(2, 1, 2, None, BOB),
    Change(3, 2, 1, ALICE, BOB),
    Change(4, 3, 3, None, ALICE),
    Change(5, 3, 2, BOB, ALICE),
    Change(6, 4, 3, ALICE, None),
]

FOR_ALL = [change.told(None) for change in CHANGES]
FOR_ALICE = [
    ("INSERT", 1, 1),
    ("DELETE", 1, None),
    ("INSERT", 3, 4),
    ("UPDATE", 2, 5),
    ("DELETE", 3, None),
]


def complaints(owner, *stretches):
    """Judge stretches, each its loaded number and its batches."""
    writer = NumberedWriter("")
    writer.changes = CHANGES
    keeper = RowKeeper(lambda: "", "", Viewer("", owner))
    keeper.stretches = [Stretch("x", loaded, batches) for loaded, *batches in stretches]
    return broken_promises(keeper, writer)


def test_everybody_is_owed_what_he_may_see():
    assert [change.told(ALICE) for change in CHANGES if change.told(ALICE)] == FOR_ALICE
    assert FOR_ALL[2] == ("UPDATE", 1, 3)


@pytest.mark.parametrize(
    "stretches",
    [
        [(0, FOR_ALL)],
        [(0, FOR_ALL[:2], FOR_ALL[2:3], FOR_ALL[3:])],
        # Loaded what it was told as well.
        [(3, FOR_ALL[2:])],
        [(6,)],
        [(0, FOR_ALL[:2]), (3, FOR_ALL[3:])],
        # Only DELETEs, which have no number.
        [(5, FOR_ALL[5:])],
    ],
)
def test_one_piece_of_what_is_owed_breaks_no_promise(stretches):
    assert complaints(None, *stretches) == []
    assert complaints(ALICE, (0, FOR_ALICE)) == []


@pytest.mark.parametrize(
    ("stretches", "complaint"),
    [
        ([(0, FOR_ALL[:2], FOR_ALL[3:])], "lost, doubled or out of order"),
        ([(0, FOR_ALL[:2], FOR_ALL[:2], FOR_ALL[2:])], "lost, doubled or out of order"),
        ([(0, FOR_ALL[:2], FOR_ALL[3:5], FOR_ALL[2:3])], "lost, doubled or out of order"),
        ([(0, FOR_ALL[:1], FOR_ALL[1:])], "a position stands within the transaction"),
        ([(2, FOR_ALL[3:])], "was neither loaded nor told"),
        ([(0, FOR_ALL[:2]), (2, FOR_ALL[3:])], "was neither loaded nor told"),
        ([(0, FOR_ALL[:5])], "never came"),
        ([(5,)], "never came"),
        ([(0, [("INSERT", 9, 9)])], "lost, doubled or out of order"),
    ],
)
def test_every_kind_of_broken_promise_is_found(stretches, complaint):
    (found,) = complaints(None, *stretches)
    assert complaint in found
