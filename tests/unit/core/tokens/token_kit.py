"""Tokens made by hand: libraries refuse what some tests need."""

import base64
import hashlib
import hmac
import json

NOW = 1_800_000_000.0
SECRET = "a secret of at least thirty-two bytes, truly"
OTHER_SECRET = "another secret of at least thirty-two bytes"
CLAIMS = {"role": "authenticated", "sub": "user-1", "exp": int(NOW) + 3600}


def b64(content):
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def b64_json(value):
    return b64(json.dumps(value).encode())


def signed(payload, *, header=None, secret=SECRET):
    """A token of raw payload text, signed by hand with HS256: libraries refuse what we need."""
    content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    head = b64_json({"alg": "HS256", "typ": "JWT"} if header is None else header)
    message = f"{head}.{b64(content)}"
    digest = hmac.digest(secret.encode(), message.encode(), hashlib.sha256)
    return f"{message}.{b64(digest)}"
