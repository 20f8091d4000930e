import pytest

from heliograph.server.origins import OriginPolicy

LISTED = OriginPolicy(["https://app.example", "null"], allows_local=False)
LOCAL = OriginPolicy(allows_local=True)


def test_no_origin_is_not_a_browser_and_fine():
    assert LISTED.is_allowed([])
    assert LOCAL.is_allowed([])


@pytest.mark.security
def test_a_listed_origin_is_allowed_exactly_as_it_stands():
    assert LISTED.is_allowed(["https://app.example"])
    for origin in (
        *(
            "http://app.example",
            "https://app.example:443",
            "https://app.example/",
            "HTTPS://app.example",
        ),
        *(
            "https://app.example.",
            "https://xapp.example",
            "https://app.example.evil.tld",
            "null",
            "",
        ),
        "http://localhost",
    ):
        assert not LISTED.is_allowed([origin]), origin


def test_two_origins_are_never_allowed():
    assert not LISTED.is_allowed(["https://app.example", "https://app.example"])


@pytest.mark.parametrize(
    "origin",
    ["http://localhost", "http://localhost:3000", "https://127.0.0.1:8443", "http://[::1]:1"],
)
def test_local_pages_are_allowed_in_development(origin):
    assert LOCAL.is_allowed([origin])


@pytest.mark.parametrize(
    "origin",
    [
        *("http://localhost.evil.tld", "http://localhost:80.evil", "http://evil@localhost"),
        *("http://127.0.0.1.evil.tld", "file://localhost", "http://localhost/", "null"),
        *("http://localhost:999999", "http://LOCALHOST", "http://localhost\n"),
    ],
)
def test_what_only_looks_local_is_refused(origin):
    assert not LOCAL.is_allowed([origin])
