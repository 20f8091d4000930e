from channel_kit import identity

from heliograph.core.channels.bearer import is_older


def test_an_earlier_token_of_the_same_user_is_older():
    assert is_older(identity("ada", iat=1), identity("ada", iat=2))
    assert not is_older(identity("ada", iat=2), identity("ada", iat=2))


def test_keys_other_users_and_tokens_without_iat_are_not_compared():
    assert not is_older(identity(None, iat=1), identity(None, iat=2))
    assert not is_older(identity("ada", iat=1), identity("bob", iat=2))
    assert not is_older(identity("ada"), identity("ada", iat=2))
    assert not is_older(identity("ada", iat=1), identity("ada"))
