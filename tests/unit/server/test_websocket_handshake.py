import json

import pytest

from heliograph.server.websocket_handshake import (
    HandshakeRefusal,
    HandshakeRequest,
    accept_value,
)

UPGRADE = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
]


def request(**changes):
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    headers = [(name, named.get(name, value)) for name, value in UPGRADE]
    return HandshakeRequest("", [(name, value) for name, value in headers if value is not None])


def test_the_accept_value_is_the_one_of_the_rfc():
    # RFC 6455 section 1.3.
    assert accept_value(request()) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    "connection", ["keep-alive, Upgrade", "UPGRADE", "upgrade,x", "x ,upgrade "]
)
def test_upgrade_may_be_one_of_several_words(connection):
    assert isinstance(accept_value(request(connection=connection)), str)
    assert isinstance(accept_value(request(upgrade="WebSocket")), str)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"connection": "close"}, 426),
        ({"connection": None}, 426),
        ({"upgrade": "h2c, websocket"}, 426),
        ({"sec_websocket_version": "8"}, 426),
        ({"sec_websocket_key": "AAAA"}, 400),
        ({"sec_websocket_key": "not base64!"}, 400),
        ({"sec_websocket_key": None}, 400),
    ],
)
def test_a_faulty_upgrade_is_refused(changes, status):
    refusal = accept_value(request(**changes))
    assert isinstance(refusal, HandshakeRefusal)
    assert refusal.status == status


def test_repeated_keys_are_refused():
    twice = HandshakeRequest("", [*UPGRADE, UPGRADE[3]])
    assert accept_value(twice).status == 400


def test_a_refusal_is_a_whole_http_response():
    response = HandshakeRefusal(401, 'say "please"').to_http("x-more: 1")
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert b"connection: close" in head
    assert b"x-more: 1" in head
    assert json.loads(body) == {"error": 'say "please"'}
    assert HandshakeRefusal(403, None).to_http().endswith(b"\r\n\r\n")
