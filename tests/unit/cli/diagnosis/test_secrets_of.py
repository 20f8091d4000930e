"""Secrets are taken out of any text, whole and in pieces."""

from heliograph.cli.diagnosis.check import CheckName, fail, ok
from heliograph.cli.diagnosis.secrets_of import collect_secrets
from heliograph.cli.doctor import as_document, as_text

ENVIRON = {
    "DATABASE_URL": "postgresql://owner:planted%20word@h/shop",
    "HELIOGRAPH_JWT_SECRET": " planted-secret ",
    "HELIOGRAPH_PORT": "planted-but-public",
}


def test_values_passwords_and_the_token_are_hidden():
    secrets = collect_secrets(ENVIRON, "planted-token")
    text = "planted-secret planted%20word 'planted word' planted-token planted-but-public owner"
    assert secrets.hide(text) == ("[hidden] [hidden] '[hidden]' [hidden] planted-but-public owner")


def test_a_password_that_is_also_a_name_does_not_hide_the_name():
    secrets = collect_secrets({"DATABASE_URL": "postgresql://postgres:postgres@h/postgres"}, None)
    assert secrets.hide('database "postgres"') == 'database "postgres"'


def test_no_form_of_the_report_shows_a_secret():
    secrets = collect_secrets(ENVIRON, None)
    text = "planted-secret"
    check = fail(CheckName.TOKEN, text, text, subject=text)
    for printed in (str(as_document([check], secrets)), as_text([check], secrets)):
        assert "planted-secret" not in printed
        assert "[hidden]" in printed


def test_the_report_for_people_has_marks_remedies_pages_and_a_count():
    secrets = collect_secrets({}, None)
    checks = [
        ok(CheckName.WAL_LEVEL, "wal_level is logical"),
        fail(CheckName.TOKEN, "it is bad", "mint another"),
    ]
    assert as_text(checks, secrets).splitlines() == [
        "ok    wal-level: wal_level is logical",
        "FAIL  token: it is bad",
        "      mint another",
        "      see docs/troubleshooting/token-refused.md",
        "",
        "1 failed, 0 warnings, 1 ok, 0 not looked at",
    ]
