"""Sockets leave files for everything else."""

import resource

import pytest

from heliograph.limits import OPEN_FILES_RESERVED
from heliograph.server.open_files import fit_connections


@pytest.fixture
def limits(monkeypatch):
    """The process' limits as a list [soft, hard], changed by what would set them."""
    kept = [1_024, 4_096]
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (kept[0], kept[1]))
    monkeypatch.setattr(resource, "setrlimit", lambda _what, new: kept.__setitem__(slice(2), new))
    return kept


def test_the_soft_limit_is_raised_as_far_as_needed(limits):
    assert fit_connections(2_000) == 2_000
    assert limits == [2_000 + OPEN_FILES_RESERVED, 4_096]


def test_what_does_not_fit_below_the_hard_limit_is_left_out(limits):
    assert fit_connections(20_000) == 4_096 - OPEN_FILES_RESERVED
    assert limits[0] == 4_096


def test_a_limit_that_is_high_enough_stays(limits):
    assert fit_connections(500) == 500
    assert limits == [1_024, 4_096]
    limits[:] = [resource.RLIM_INFINITY, resource.RLIM_INFINITY]
    assert fit_connections(1_000_000) == 1_000_000
    limits[:] = [1_024, resource.RLIM_INFINITY]
    assert fit_connections(1_000_000) == 1_000_000
