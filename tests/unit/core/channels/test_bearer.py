from channel_kit import identity

from heliograph.core.channels.bearer import is_older, issued_s


def test_a_token_issued_before_the_newest_is_older():
    assert is_older(identity("ada", iat=1), 2)
    assert not is_older(identity("ada", iat=2), 2)
    assert not is_older(identity("ada", iat=1), None)


def test_keys_and_tokens_without_iat_are_not_compared():
    assert issued_s(identity("ada", iat=1)) == 1
    assert issued_s(identity(None, iat=1)) is None
    assert issued_s(identity("ada")) is None
    assert not is_older(identity(None, iat=1), 2)
    assert not is_older(identity("ada"), 2)
