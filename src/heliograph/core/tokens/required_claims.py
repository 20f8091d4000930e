"""Claims that every token of this server must have with exactly these values."""

import json
from collections.abc import Mapping


def unmet_claim(claims: Mapping[str, object], required: Mapping[str, object]) -> str | None:
    """Return the first required claim that is not there with its value; None if all are."""
    for name, value in required.items():
        if name not in claims or _canonical(claims[name]) != _canonical(value):
            return name
    return None


def _canonical(value: object) -> str:
    """Return one text for one JSON value: for Python 1, 1.0 and True are equal."""
    return json.dumps(value, sort_keys=True)
