from hypothesis import given, strategies as st

from heliograph.core.channels.rate_limit import TokenBucket


def test_a_burst_passes_and_then_the_rate_counts():
    bucket = TokenBucket(rate_per_s=2, burst=3, now_s=100.0)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(100.4)
    assert bucket.take(100.5)
    assert not bucket.take(100.5)


def test_a_clock_that_stands_or_goes_back_gives_nothing():
    bucket = TokenBucket(rate_per_s=1, burst=1, now_s=100.0)
    assert bucket.take(100.0)
    assert not bucket.take(50.0)


@given(st.lists(st.floats(0, 2), max_size=60))
def test_no_window_passes_more_than_burst_plus_rate(waits):
    bucket = TokenBucket(rate_per_s=5, burst=4, now_s=0.0)
    now_s, passed = 0.0, 0
    for wait in waits:
        now_s += wait
        passed += bucket.take(now_s)
    assert passed <= 4 + 5 * now_s + 1e-6
