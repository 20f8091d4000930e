"""Writing to the terminal: results to standard output, everything else to standard error.

Text from outside (names, messages of the database) is shown as text: control characters are
replaced, so that nothing can clear the screen, forge a line or change the title of a window, and
square brackets are no markup.
"""

import msgspec
from rich.console import Console
from rich.text import Text

#: Control characters that may stay: a message of ours can have several lines.
_KEPT = "\n\t"


def printable(text: str) -> str:
    """Return `text` with control characters, but line feed and tab, written as escapes."""
    return "".join(
        character if character.isprintable() or character in _KEPT else _escaped(character)
        for character in text
    )


class Terminal:
    """The two streams of a command."""

    def __init__(self, *, output: Console | None = None, messages: Console | None = None) -> None:
        """Write to the process' streams unless others are given."""
        self.output = output or Console(markup=False, highlight=False, soft_wrap=True)
        self.messages = messages or Console(
            stderr=True, markup=False, highlight=False, soft_wrap=True
        )

    def write(self, text: str) -> None:
        """Write a result to standard output."""
        self.output.print(Text(printable(text)))

    def write_json(self, value: object) -> None:
        """Write one line of JSON to standard output, at once, without colours."""
        self.output.file.write(msgspec.json.encode(value).decode() + "\n")
        self.output.file.flush()

    def note(self, text: str) -> None:
        """Write what is going on to standard error."""
        self.messages.print(Text(printable(text)))

    def warn(self, text: str) -> None:
        """Write a warning to standard error."""
        self.messages.print(Text("warning: ", style="yellow") + Text(printable(text)))

    def fail(self, text: str) -> None:
        """Write why the command failed to standard error."""
        self.messages.print(Text("error: ", style="bold red") + Text(printable(text)))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
