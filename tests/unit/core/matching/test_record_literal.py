from hypothesis import example, given, strategies as st

from heliograph.core.matching.array_literal import parse_array
from heliograph.core.matching.record_literal import arranged, array_literal, record_literal
from heliograph.core.replication.row_change import Unknown


def test_values_are_quoted_and_quotes_and_backslashes_doubled():
    assert record_literal(["a b", None, 'q"', "\\", ""]) == '("a b",,"q""","\\\\","")'


def test_unknown_values_are_written_as_null():
    assert record_literal([Unknown.NOT_SENT, Unknown.UNCHANGED_TOAST, "1"]) == '(,,"1")'


def test_a_row_is_brought_into_the_order_of_the_table():
    assert arranged(("1", "x"), (1, None, 0)) == ["x", Unknown.NOT_SENT, "1"]


@given(st.lists(st.text(alphabet='a"\\{},() N\n', max_size=6), max_size=4))
@example(["NULL", "", '("x\\",,"q""")'])
def test_an_array_of_texts_reads_back_as_the_same_texts(texts):
    assert parse_array(array_literal(texts)) == texts
