"""Required claims are compared as JSON; the first that is not met is named."""

import pytest

from heliograph.core.tokens.required_claims import unmet_claim

REQUIRED = {"aud": "shop", "level": 1, "org": {"id": 7, "parts": ["a"]}}


def test_claims_that_are_all_there_are_met_whatever_else_is():
    assert unmet_claim({**REQUIRED, "org": {"parts": ["a"], "id": 7}, "x": 1}, REQUIRED) is None
    assert unmet_claim({}, {}) is None


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({}, "aud"),
        ({**REQUIRED, "aud": ["shop"]}, "aud"),
        ({**REQUIRED, "aud": None}, "aud"),
        ({**REQUIRED, "level": True}, "level"),
        ({**REQUIRED, "level": 1.0}, "level"),
        ({**REQUIRED, "org": {"id": 7}}, "org"),
    ],
)
def test_the_first_that_is_not_met_is_named(claims, name):
    assert unmet_claim(claims, REQUIRED) == name
