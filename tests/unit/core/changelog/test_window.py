from hypothesis import given, strategies as st

from heliograph.core.changelog.window import Window


@given(st.lists(st.integers(0, 5), max_size=60))
def test_a_window_behaves_like_a_list_whose_elements_keep_their_numbers(steps):
    window, kept, dropped, next_value = Window(), [], 0, 0
    for step in steps:
        if step == 0 and kept:
            window.drop_first()
            kept.pop(0)
            dropped += 1
        else:
            next_value += step
            window.append(next_value)
            kept.append(next_value)
        assert len(window) == len(kept)
        assert [window[offset] for offset in range(len(window))] == kept
        assert (window.start, window.end) == (dropped, dropped + len(kept))


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(0, 20), st.integers(1, 50))
def test_searching_an_ascending_window(values, drops, wanted):
    values = sorted(values)
    window = Window()
    for value in values:
        window.append(value)
    drops = min(drops, len(values))
    for _ in range(drops):
        window.drop_first()
    left = values[drops:]
    above = [number for number, value in enumerate(values) if number >= drops and value > wanted]
    assert window.first_above(wanted) == (above[0] if above else len(values))
    assert list(window.iterate_from(wanted)) == [value for value in left if value >= wanted]
