"""Structured logs: one event, one line, no secrets (S37).

Everything goes through one chain, our own events and those of libraries that use the standard
`logging`: values of telling keys are redacted, tokens and keys are recognised wherever they stand,
control characters are escaped, long values are cut. Query strings are never logged, they hold keys.
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, TextIO, cast

import structlog

from heliograph.config import LogFormat

__all__ = ["configure_logging", "redact", "redact_event", "redact_text"]

_VALUE_CHARACTERS_MAX: Final = 2_000
_REDACTED: Final = "[redacted]"
_SECRET_KEYS: Final = frozenset(
    {"apikey", "api_key", "x-api-key", "token", "access_token", "user_token", "authorization"}
    | {"password", "secret", "jwt_secret", "cookie", "service_role_key", "anon_key"}
)
#: JWTs, opaque keys, credentials in URLs and headers, key=value pairs of queries.
_SECRET_TEXT: Final = re.compile(
    r"eyJ[\w-]{5,}(?:\.[\w-]*){1,4}"
    r"|\bsb_(?:publishable|secret)_[\w-]+"
    r"|(?<=://)[^/@\s:]+:[^/@\s]+(?=@)"
    r"|(?i:\b(?:apikey|api_key|x-api-key|access_token|token|authorization|password)\b[\"']?"
    r"\s*[=:]\s*[\"']?(?:bearer\s+)?)[^\s\"'&,;)}\]]+"
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure_logging(
    log_format: LogFormat, *, level: str = "INFO", stream: TextIO | None = None
) -> None:
    """Set up structlog and the standard library's logging for this process.

    Args:
        log_format: ``json`` for machines, ``console`` for people.
        level: Least level shown.
        stream: Where lines go; standard error by default.
    """
    chain: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact_event,
    ]
    last: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=True)
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=chain,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Their access lines hold raw query strings.
    logging.getLogger("uvicorn.access").disabled = True
    for chatty in ("uvicorn.error", "asyncio", "httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *chain,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def redact_event(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Take secrets and control characters out of every value; a structlog processor."""
    for key, value in event.items():
        if not key.startswith("_"):
            event[key] = _REDACTED if key.lower() in _SECRET_KEYS else redact(value)
    return event


def redact(value: object) -> object:
    """Return a value that is safe to log: text redacted, escaped and cut, containers walked."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        return {
            redact_text(str(key)): (_REDACTED if str(key).lower() in _SECRET_KEYS else redact(each))
            for key, each in mapping.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(each) for each in cast("list[object]", value)]
    return redact_text(str(value))


def redact_text(text: str) -> str:
    """Return one line without anything that looks like a secret."""
    cut = text[:_VALUE_CHARACTERS_MAX]
    ending = "…" if len(text) > len(cut) else ""
    return _CONTROL.sub(_escape, _SECRET_TEXT.sub(_REDACTED, cut)) + ending


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
