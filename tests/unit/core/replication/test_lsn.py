"""LSNs read and write PostgreSQL's text form."""

import pytest
from hypothesis import given, strategies as st

from heliograph.core.replication.lsn import Lsn, format_lsn, parse_lsn
from heliograph.errors import RemoteProtocolError


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0/0", 0),
        ("16/B374D848", 0x16_B374D848),
        ("0/1000000", 0x1000000),
        ("FFFFFFFF/FFFFFFFF", 2**64 - 1),
    ],
)
def test_an_lsn_is_two_hexadecimal_halves(text, number):
    assert parse_lsn(text) == number
    assert format_lsn(Lsn(number)) == text


@given(st.integers(0, 2**64 - 1).map(Lsn))
def test_each_lsn_survives_its_text_form(lsn):
    assert parse_lsn(format_lsn(lsn)) == lsn


@pytest.mark.parametrize(
    "text", ["", "0", "0/", "/0", "0/0/0", "x/0", "123456789/0", "0/0 ", "-1/0"]
)
def test_other_texts_are_refused(text):
    with pytest.raises(RemoteProtocolError, match="expected an LSN"):
        parse_lsn(text)
