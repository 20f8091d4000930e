import io
import json
import logging

import pytest
import structlog
from hypothesis import given, strategies as st

from heliograph.server.logging import configure_logging, redact, redact_text

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYW5vbiJ9.c2lnbmF0dXJl"


@pytest.fixture
def lines():
    """Configure JSON logging; return a function that gives the lines so far."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    structlog.reset_defaults()
    configure_logging("json", stream=stream)
    yield lambda: stream.getvalue().splitlines()
    root.handlers[:], root.level = handlers, level
    logging.getLogger("uvicorn.access").disabled = False
    structlog.reset_defaults()


@pytest.mark.security
def test_a_planted_secret_or_newline_never_reaches_the_log(lines):
    log = structlog.get_logger("t")
    log.info('event\n{"level":"error"', value="a\x1b[31m\nb\u2028c", topic="x" * 1_000_000)
    log.info("event", token=JWT, nested={"Authorization": f"Bearer {JWT}", "list": [JWT]})
    log.info("event", url=f"ws://h/socket?apikey={JWT}&vsn=2.0.0", text="apikey=plain-secret&x")
    log.info("event", dsn="postgres://user:plain-secret@host/db", key="sb_secret_abc123")
    logging.getLogger("library").warning("access_token: %s", "plain-secret")
    logging.getLogger("uvicorn.access").info("GET /?apikey=plain-secret")
    found = lines()
    assert len(found) == 5
    for line in found:
        json.loads(line)
        assert "eyJ" not in line
        assert "plain-secret" not in line
        assert "sb_secret" not in line
        assert len(line) < 10_000
        assert line.isprintable()


@pytest.mark.security
def test_an_error_with_a_secret_in_its_text_is_one_clean_line(lines):
    error = RuntimeError(f"failed for token={JWT}\nsecond line")
    structlog.get_logger("t").error("failed", exc_info=error)
    (line,) = lines()
    entry = json.loads(line)
    assert "RuntimeError" in entry["exception"]
    assert "eyJ" not in line


def test_an_event_keeps_its_plain_values(lines):
    structlog.get_logger("name").info("opened", count=3, ok=True, nothing=None, ratio=0.5)
    entry = json.loads(lines()[0])
    assert {key: entry[key] for key in ("event", "count", "ok", "nothing", "ratio")} == {
        "event": "opened",
        "count": 3,
        "ok": True,
        "nothing": None,
        "ratio": 0.5,
    }
    assert (entry["level"], entry["logger"]) == ("info", "name")
    assert entry["timestamp"].endswith("Z")


def test_the_console_format_is_for_people():
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging("console", level="WARNING", stream=stream)
    log = structlog.get_logger("t")
    log.info("hidden")
    log.warning("shown", token="x")
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    assert "hidden" not in stream.getvalue()
    assert "shown" in stream.getvalue()
    assert "[redacted]" in stream.getvalue()


@given(st.text())
def test_any_text_becomes_one_printable_line(text):
    clean = redact_text(text)
    assert len(clean.splitlines()) <= 1
    assert "\x1b" not in clean


def test_containers_are_walked_and_objects_become_text():
    assert redact({"a": [1, {"password": "p"}], 2: {"x"}}) == {
        "a": [1, {"password": "[redacted]"}],
        "2": ["x"],
    }
    assert redact(ValueError("a\nb")) == "a\\nb"
