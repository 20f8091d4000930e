"""What entries ask for about positions."""

import pytest

from heliograph.core.matching.position_request import PositionRequest, read_position_request


@pytest.mark.parametrize(
    ("entries", "request_"),
    [
        ([], None),
        ([{"table": "t"}, {"positions": False, "since": None}], None),
        ([{"positions": "yes"}, {"positions": []}, {"positions": 1}], None),
        ([{"table": "t"}, {"positions": True}], PositionRequest()),
        ([{"positions": "true", "since": None}], PositionRequest()),
        ([{"since": "p"}], PositionRequest("p")),
        ([{"positions": True, "since": "p"}, {"since": "p"}, {}], PositionRequest("p")),
        ([{"since": "p"}, {"since": "q"}], PositionRequest(is_malformed=True)),
        ([{"since": 7}], PositionRequest(is_malformed=True)),
        ([{"since": "p" * 257}], PositionRequest(is_malformed=True)),
        ([{"positions": [], "since": {}}], PositionRequest(is_malformed=True)),
    ],
)
def test_one_entry_asks_for_all(entries, request_):
    assert read_position_request(entries) == request_
