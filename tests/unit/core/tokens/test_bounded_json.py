"""One text, one meaning, and nothing that jsonb can not hold."""

import json

import pytest
from hypothesis import given, strategies as st

from heliograph.core.tokens.bounded_json import decode_object, encode_object
from heliograph.errors import TokenError


@given(st.binary(max_size=200))
def test_any_bytes_give_an_object_or_the_token_error(content):
    try:
        value = decode_object(content)
    except TokenError:
        return
    assert isinstance(value, dict)


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1)))
def test_what_is_accepted_is_encoded_to_the_same(value):
    content = json.dumps(value).encode()
    try:
        decoded = decode_object(content)
    except TokenError:
        assert "\\u0000" in json.dumps(value) or "\0" in "".join(value)
        return
    assert decoded == value
    assert json.loads(encode_object(decoded)) == value


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b'"a"', b"1", b"{", b'{"a"}', b'{"a":1,"a":1}', b"{'a':1}"]
)
def test_only_objects_with_keys_used_once(content):
    with pytest.raises(TokenError):
        decode_object(content)


def test_brackets_inside_texts_are_no_depth():
    assert decode_object(b'{"a":"' + b"[" * 200 + b'\\"' + b"{" * 200 + b'"}')


def test_sixty_four_levels_are_the_most():
    assert decode_object(b'{"a":' + b"[" * 63 + b"]" * 63 + b"}")
    with pytest.raises(TokenError):
        decode_object(b'{"a":' + b"[" * 64 + b"]" * 64 + b"}")
