"""Clocks: what may be called a difference, given when was asked and how exact the answer is."""

import pytest

from heliograph.cli.diagnosis.check import CheckName
from heliograph.cli.diagnosis.clock import ClockReading, judge_clock


@pytest.mark.parametrize(
    ("reading", "ahead_s"),
    [
        (ClockReading(100, 101, 100.5), 0),
        (ClockReading(100, 101, 101.5), 0.5),
        (ClockReading(100, 101, 97), -3),
        # A Date header of 99 stands for anything up to 100.
        (ClockReading(99.9, 100.1, 99, 1.0), 0),
        (ClockReading(100, 100.5, 98, 1.0), -1),
        (ClockReading(100, 100.5, 103, 1.0), 2.5),
        # Whoever took long to answer told the time of some moment in between.
        (ClockReading(100, 130, 120), 0),
    ],
)
def test_only_what_can_not_be_explained_counts(reading, ahead_s):
    assert reading.ahead_s == pytest.approx(ahead_s)


@pytest.mark.parametrize(
    ("told_s", "status", "word"),
    [(100, "ok", "agree"), (103, "warn", "ahead of"), (97, "warn", "behind"), (70, "fail", "30.0")],
)
def test_beyond_the_leeway_of_tokens_it_is_a_failure(told_s, status, word):
    check = judge_clock(CheckName.CLOCK_DATABASE, "PostgreSQL", ClockReading(100, 100, told_s))
    assert check.status == status
    assert word in check.detail
