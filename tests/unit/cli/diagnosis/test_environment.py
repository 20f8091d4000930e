"""Lines about settings become checks of the right name, each with what to do."""

import pytest

from heliograph.cli.diagnosis.check import CheckName, CheckStatus
from heliograph.cli.diagnosis.environment import judge_environment
from heliograph.config import Settings

SECRET = "a secret that is long enough for HS256"


def names(checks, status):
    return [check.name for check in checks if check.status is status]


def test_a_complete_environment_is_well():
    checks = judge_environment({}, [], [])
    assert names(checks, CheckStatus.OK) == [
        CheckName.ENVIRONMENT_MISSING,
        CheckName.ENVIRONMENT_MALFORMED,
        CheckName.ENVIRONMENT_UNKNOWN,
    ]
    assert len(checks) == 3


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("HELIOGRAPH_PORT", "many", CheckName.ENVIRONMENT_MALFORMED),
        ("HELIOGRAPH_RING_BYTES_MAX", "1", CheckName.ENVIRONMENT_MALFORMED),
        ("HELIOGRAPH_JWT_SECRET", "short", CheckName.API_KEYS),
        ("SUPABASE_ANON_KEY", "sb_secret_planted-word-xx", CheckName.API_KEYS),
        ("HELIOGRAPH_SECRET_KEY", "sb_publishable_planted", CheckName.API_KEYS),
        ("HELIOGRAPH_JWKS", "{}", CheckName.KEY_SET),
        ("HELIOGRAPH_JWKS_URL", "http://elsewhere.example", CheckName.KEY_SET),
        ("HELIOGRAPH_ALLOWED_ORIGINS", "*", CheckName.ALLOWED_ORIGINS),
    ],
)
def test_a_malformed_variable_is_told_under_the_name_of_its_subject(variable, value, name):
    _, malformed, _ = Settings.examine({variable: value})
    checks = judge_environment(malformed, [], [])
    assert names(checks, CheckStatus.FAIL) == [name]
    (check,) = [check for check in checks if check.status is CheckStatus.FAIL]
    assert check.subject == variable
    assert check.detail.startswith(f"{variable}: ")
    assert check.remedy
    assert "planted" not in check.detail


def test_everything_missing_is_told_once_each_and_nothing_raises():
    settings, malformed, missing = Settings.examine({})
    checks = judge_environment(malformed, missing, ["HELIOGRAPH_PROT"])
    assert names(checks, CheckStatus.FAIL) == [CheckName.ENVIRONMENT_MISSING] * len(missing)
    assert names(checks, CheckStatus.WARN) == [CheckName.ENVIRONMENT_UNKNOWN]
    assert settings.port == 8000


def test_what_is_well_is_read_beside_what_is_malformed():
    settings, malformed, _ = Settings.examine(
        {"HELIOGRAPH_JWT_SECRET": SECRET, "HELIOGRAPH_PORT": "x", "HELIOGRAPH_SLOT": "mine"}
    )
    assert list(malformed) == ["port"]
    assert settings.slot == "mine"
    assert settings.jwt_secret is not None


def test_the_published_secret_is_malformed():
    published = "super-secret-jwt-token-with-at-least-32-characters-long"
    _, malformed, _ = Settings.examine({"HELIOGRAPH_JWT_SECRET": published})
    assert list(malformed) == ["jwt_secret"]
