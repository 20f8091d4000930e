import pytest

from heliograph.core.tokens.key_set import KeySet, secret_key
from heliograph.core.tokens.minting import mint_token
from heliograph.core.tokens.token_verifier import TokenVerifier
from heliograph.errors import TokenError

SECRET = "a secret of at least thirty-two bytes, truly"


def test_other_keys_may_be_put_into_a_verifier():
    token = mint_token(SECRET, {"role": "anon"}, now_s=1_000.0, ttl_s=60)
    verifier = TokenVerifier(KeySet(secret=secret_key(SECRET)))
    assert verifier.verify(token, now_s=1_001.0).role == "anon"
    with pytest.raises(TokenError):
        verifier.with_keys(KeySet()).verify(token, now_s=1_001.0)
