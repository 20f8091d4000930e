"""From the settings to keys."""

import json

from structlog.testing import capture_logs

from heliograph.config import Settings
from heliograph.config.secret import Secret
from heliograph.server.authentication import make_keys
from heliograph.server.system_clock import SystemClock


def test_keys_of_the_settings_that_can_not_be_used_are_named():
    value = "c2VjcmV0IG9mIHRoaXJ0eS10d28gYnl0ZXM"
    keys = [{"kty": "oct", "kid": "good", "k": value}, {"kty": "oct", "k": value}]
    settings = Settings(jwks=Secret(json.dumps({"keys": keys})))
    with capture_logs() as lines:
        make_keys(settings, SystemClock())
    assert lines == [
        {
            "event": "jwks_read",
            "log_level": "warning",
            "source": "HELIOGRAPH_JWKS",
            "usable_keys": 1,
            "left_out": [
                "key 2 of the JWKS is not used: it has no key id (kid), so no token can name it"
            ],
        }
    ]


def test_keys_of_the_settings_that_are_all_good_are_not_worth_a_line():
    settings = Settings(jwt_secret=Secret("a secret of at least thirty-two bytes, truly"))
    with capture_logs() as lines:
        make_keys(settings, SystemClock())
    assert lines == []
