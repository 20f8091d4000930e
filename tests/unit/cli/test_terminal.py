"""The terminal shows outside text as text, results and messages on their own streams."""

import io

from hypothesis import given, strategies as st
from rich.console import Console

from heliograph.cli.terminal import Terminal, printable


def terminal() -> tuple[Terminal, io.StringIO, io.StringIO]:
    output, messages = io.StringIO(), io.StringIO()
    return (
        Terminal(output=Console(file=output), messages=Console(file=messages)),
        output,
        messages,
    )


@given(st.text())
def test_no_control_character_reaches_the_terminal(text):
    shown = printable(text)
    assert all(character.isprintable() or character in "\n\t" for character in shown)


def test_an_escape_sequence_is_shown_as_text():
    assert printable("\x1b[2Jcleared\r\x00") == "\\x1b[2Jcleared\\r\\x00"
    assert printable("zwei Zeilen\n\tgrün") == "zwei Zeilen\n\tgrün"


def test_results_and_messages_go_to_their_own_streams():
    shown, output, messages = terminal()
    shown.write("a row [bold]")
    shown.write_json({"url": "http://127.0.0.1"})
    shown.note("starting")
    shown.warn("careful")
    shown.fail("broken")
    assert output.getvalue() == 'a row [bold]\n{"url":"http://127.0.0.1"}\n'
    assert messages.getvalue() == "starting\nwarning: careful\nerror: broken\n"


def test_json_is_one_line_however_narrow_the_terminal_is():
    output = io.StringIO()
    Terminal(output=Console(file=output, width=20)).write_json({"key": "x" * 200})
    assert output.getvalue().count("\n") == 1
