"""Whether rights changed between a commit and a judgement, decided from the stream."""

from heliograph.core.replication.lsn import ZERO_LSN, Lsn
from heliograph.core.replication.snapshot import Snapshot
from heliograph.server.delivery.rights_log import RightsLog

ALL = Snapshot(1000, 1000, frozenset())


def test_a_later_grant_that_the_snapshot_sees_counts_as_changed():
    log = RightsLog()
    log.follow(5, ZERO_LSN)
    log.rows_changed([5], Lsn(200), 12)
    assert log.changed_between(Lsn(100), ALL, [5])
    assert not log.changed_between(Lsn(200), ALL, [5])
    assert not log.changed_between(Lsn(100), ALL, [6])


def test_a_later_grant_that_the_snapshot_does_not_see_does_not_count():
    log = RightsLog()
    log.follow(5, ZERO_LSN)
    log.rows_changed([5], Lsn(200), 12)
    assert not log.changed_between(Lsn(100), Snapshot(12, 13, frozenset({12})), [5])


def test_an_older_change_behind_an_unseen_one_is_still_found():
    log = RightsLog()
    log.follow(5, ZERO_LSN)
    log.rows_changed([5], Lsn(200), 12)
    log.rows_changed([5], Lsn(300), 13)
    assert log.changed_between(Lsn(100), Snapshot(13, 14, frozenset({13})), [5])


def test_a_table_followed_only_since_later_counts_as_changed():
    log = RightsLog()
    log.follow(5, Lsn(150))
    assert log.changed_between(Lsn(100), ALL, [5])
    assert not log.changed_between(Lsn(150), ALL, [5])


def test_a_changed_definition_concerns_every_judgement():
    log = RightsLog()
    log.definitions_changed(Lsn(200), 12)
    assert log.changed_between(Lsn(100), ALL, [])
    assert not log.changed_between(Lsn(200), ALL, [])


def test_what_was_forgotten_counts_as_changed():
    log = RightsLog()
    log.follow(5, ZERO_LSN)
    for number in range(1, 2_000):
        log.rows_changed([5], Lsn(number * 10), number % 900)
    assert log.changed_between(Lsn(20), Snapshot(1, 1, frozenset()), [5])
    assert not log.changed_between(Lsn(20_000), ALL, [5])


def test_tables_nobody_follows_are_not_kept():
    log = RightsLog()
    log.rows_changed([5], Lsn(200), 12)
    log.follow(5, ZERO_LSN)
    assert not log.changed_between(Lsn(100), ALL, [5])
    assert log.follows(5)


def test_a_transaction_that_changed_rights_itself_is_known_by_its_commit():
    log = RightsLog()
    log.follow(5, ZERO_LSN)
    log.rows_changed([5], Lsn(100), 12)
    log.definitions_changed(Lsn(200), 13)
    log.rows_changed([5], Lsn(300), 14)
    for commit_lsn, relations in ((100, [5]), (200, []), (300, [5, 6])):
        assert log.changed_by(Lsn(commit_lsn), relations)
    for commit_lsn, relations in ((100, []), (150, [5]), (300, [6]), (400, [5])):
        assert not log.changed_by(Lsn(commit_lsn), relations)


def test_of_a_transaction_that_was_forgotten_it_is_assumed():
    log = RightsLog()
    log.follow(5, ZERO_LSN)
    for number in range(1, 2_000):
        log.rows_changed([5], Lsn(number * 10), number)
    assert log.changed_by(Lsn(15), [5])
    assert not log.changed_by(Lsn(19_985), [5])
