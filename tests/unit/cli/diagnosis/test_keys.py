"""API keys: accepted or not, of which role, for how long."""

import pytest

from heliograph.cli.diagnosis.check import CheckStatus
from heliograph.cli.diagnosis.keys import ShownKey, judge_keys

NOW_S = 1_800_000_000.0
DAY_S = 86_400


@pytest.mark.parametrize(
    ("key", "status", "text"),
    [
        (ShownKey("SUPABASE_ANON_KEY", None, "anon", NOW_S + 90 * DAY_S), "ok", "90 more days"),
        (ShownKey("SUPABASE_ANON_KEY", None, "anon", NOW_S + 9 * DAY_S), "warn", "9 more days"),
        (ShownKey("HELIOGRAPH_SECRET_KEY", None, "service_role", None), "ok", "service_role"),
        (ShownKey("HELIOGRAPH_PUBLISHABLE_KEY", None, "service_role", None), "fail", "not anon"),
        (ShownKey("SUPABASE_ANON_KEY", "Token is not valid yet", None, None), "fail", "refuse it"),
    ],
)
def test_each_key_is_judged(key, status, text):
    (check,) = judge_keys([key], now_s=NOW_S, mints_keys=True)
    assert check.status == status
    assert text in check.detail
    assert check.subject == key.variable
    assert bool(check.remedy) == (status != "ok")


def test_without_keys_the_secret_mints_them():
    (check,) = judge_keys([], now_s=NOW_S, mints_keys=True)
    assert check.status is CheckStatus.OK
    assert judge_keys([], now_s=NOW_S, mints_keys=False) == []
