from heliograph.core.wire.close_codes import CLOSE_CODES


def test_codes_and_names_are_unique_and_in_order():
    numbers = [code.number for code in CLOSE_CODES]
    assert numbers == sorted(set(numbers))
    assert len({code.name for code in CLOSE_CODES}) == len(CLOSE_CODES)


def test_our_own_codes_say_come_back_by_their_range():
    ours = [code for code in CLOSE_CODES if code.number >= 3000]
    assert ours
    assert all(code.retryable == (code.number < 3500) for code in ours)
