"""Origins: what is allowed, and what to set for one that is not."""

import pytest

from heliograph.cli.diagnosis.origins import judge_allowed_origins, judge_origin
from heliograph.config import Settings


def settings(origins):
    environ = {} if origins is None else {"HELIOGRAPH_ALLOWED_ORIGINS": origins}
    return Settings.from_environ(environ)


@pytest.mark.parametrize(
    ("origins", "status"), [(None, "skip"), ("", "warn"), ("https://app.example", "ok")]
)
def test_the_setting_is_judged(origins, status):
    (check,) = judge_allowed_origins(settings(origins), is_malformed=False)
    assert check.status == status


def test_what_is_malformed_is_told_elsewhere():
    assert judge_allowed_origins(settings(None), is_malformed=True) == []


@pytest.mark.parametrize(
    "given",
    [
        "https://app.example",
        "https://APP.example:443",
        "https://app.example/",
        "https://app.example/cart?id=1#top",
    ],
)
def test_an_origin_or_a_page_of_it_is_accepted(given):
    assert judge_origin(given, settings("https://app.example")).status == "ok"


@pytest.mark.parametrize(
    "given", ["http://app.example", "https://app.example:8443", "https://www.app.example"]
)
def test_a_similar_origin_is_refused_with_what_to_set(given):
    check = judge_origin(given, settings("https://app.example"))
    assert check.status == "fail"
    assert f"HELIOGRAPH_ALLOWED_ORIGINS=https://app.example,{given}" in check.remedy


@pytest.mark.parametrize(
    "given", ["null", "", "app.example", "file:///x", "https://a.b,https://c.d"]
)
def test_what_no_browser_sends_is_told(given):
    check = judge_origin(given, settings("https://app.example"))
    assert check.status == "fail"
    assert "no origin" in check.detail
