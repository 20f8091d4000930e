"""The plain types of the stream are values; changes are compared by identity."""

import msgspec
import pytest

from fixtures.pgoutput import make_relation
from heliograph.core.replication.relation import ReplicaIdentity
from heliograph.core.replication.row_change import ChangeKind, RowChange


def test_equal_descriptions_of_a_table_are_equal():
    assert make_relation() == make_relation()
    assert make_relation() != make_relation(identity=ReplicaIdentity.DEFAULT)
    assert make_relation() != make_relation(columns=("id", "text"))


def test_a_change_can_not_be_altered():
    change = RowChange(ChangeKind.INSERT, make_relation(), 0, ("1", None), None, old_is_full=False)
    with pytest.raises(AttributeError):
        change.sequence = 1
    assert change != msgspec.structs.replace(change)
    assert len({change, msgspec.structs.replace(change)}) == 2
