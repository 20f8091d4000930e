"""How far the reader is behind, told from looks at the database."""

from heliograph.cli.database_watch import LagMeter
from heliograph.core.replication.lsn import Lsn
from heliograph.limits import DATABASE_LOOKS_KEPT_MAX


def test_a_reader_that_is_where_the_database_was_last_seen_has_no_lag():
    meter = LagMeter()
    assert meter.lag_s(Lsn(0), 10.0) == 0.0
    meter.look(Lsn(100), 10.0)
    assert meter.lag_s(Lsn(100), 15.0) == 0.0


def test_the_lag_counts_from_the_first_look_that_was_ahead_of_the_reader():
    meter = LagMeter()
    for now_s, database in ((10.0, 100), (12.0, 200), (14.0, 300)):
        meter.look(Lsn(database), now_s)
    assert meter.lag_s(Lsn(150), 15.0) == 3.0
    assert meter.lag_s(Lsn(200), 15.0) == 1.0
    assert meter.lag_s(Lsn(300), 15.0) == 0.0


def test_a_bounded_number_of_looks_is_kept():
    meter = LagMeter()
    for number in range(DATABASE_LOOKS_KEPT_MAX + 5):
        meter.look(Lsn(number + 1), float(number))
    assert meter.lag_s(Lsn(0), float(DATABASE_LOOKS_KEPT_MAX + 5)) == DATABASE_LOOKS_KEPT_MAX
