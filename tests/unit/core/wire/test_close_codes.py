import pytest

from heliograph.core.wire.close_codes import CLOSE_CODES, is_valid_on_the_wire


def test_codes_and_names_are_unique_and_in_order():
    numbers = [code.number for code in CLOSE_CODES]
    assert numbers == sorted(set(numbers))
    assert len({code.name for code in CLOSE_CODES}) == len(CLOSE_CODES)


def test_our_own_codes_say_come_back_by_their_range():
    ours = [code for code in CLOSE_CODES if code.number >= 3000]
    assert ours
    assert all(code.retryable == (code.number < 3500) for code in ours)


@pytest.mark.parametrize("number", [1000, 1003, 1007, 1014, 3000, 4999])
def test_codes_that_may_stand_in_a_close_frame(number):
    assert is_valid_on_the_wire(number)


@pytest.mark.parametrize("number", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_codes_that_may_not(number):
    assert not is_valid_on_the_wire(number)
