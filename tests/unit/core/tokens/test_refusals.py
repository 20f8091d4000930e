"""The exact words of the reference, as clients show them."""

import pytest

from heliograph.core.tokens import refusals


@pytest.mark.parametrize(
    ("error", "join", "handshake"),
    [
        (
            refusals.expired(3),
            "InvalidJWTToken: Token has expired 3 seconds ago",
            "Token has expired",
        ),
        (
            refusals.expiry_invalid(),
            "InvalidJWTToken: Token expiration time is invalid",
            "Token expiration time is invalid",
        ),
        (
            refusals.claims_missing(),
            "InvalidJWTToken: Fields `role` and `exp` are required in JWT",
            "Fields `role` and `exp` are required in JWT",
        ),
        (
            refusals.unknown_api_key(),
            "InvalidApiKey: Invalid authentication credentials",
            "Invalid authentication credentials",
        ),
    ],
)
def test_a_refusal_has_words_for_joins_and_for_handshakes(error, join, handshake):
    assert refusals.join_text(error) == join
    assert refusals.handshake_text(error) == handshake


def test_a_missing_key_is_refused_with_the_reference_text():
    from heliograph.core.tokens.refusals import api_key_missing

    assert str(api_key_missing()) == "API key is missing"
