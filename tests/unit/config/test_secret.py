"""A secret is shown to nobody who does not ask for it by name."""

import pickle

import pytest

from heliograph.config import Secret


def test_no_printed_form_holds_the_text():
    secret = Secret("planted-text")
    for shown in (repr(secret), str(secret), f"{secret}", f"{[secret]}", f"{secret}"):
        assert "planted" not in shown


def test_reveal_returns_the_text():
    assert Secret("text").reveal() == "text"


def test_equal_texts_are_equal_secrets():
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


def test_a_secret_can_not_be_pickled():
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(Secret("text"))
