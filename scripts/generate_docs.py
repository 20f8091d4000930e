"""Write the reference pages whose content is in the code.

Usage: ``python scripts/generate_docs.py [--check]``

- ``docs/reference/errors.md`` from the error tree (``heliograph/errors.py``),
- ``docs/reference/limits.md`` from the constants and their comments (``heliograph/limits.py``),
- ``docs/reference/config.md`` from the settings (``heliograph/config/``),
- ``docs/reference/close-codes.md`` from the table in ``heliograph/core/wire/close_codes.py``,
- ``docs/reference/metrics.md`` from the metrics themselves (``heliograph/server/``).

With ``--check`` nothing is written; the exit code is 1 if a page differs from the code.
A test does the same comparison.
"""

import ast
import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client.metrics import MetricWrapperBase

from heliograph import errors, limits
from heliograph.config import Bounds, Settings, settings_of
from heliograph.config.setting import default_text
from heliograph.core.wire.close_codes import CLOSE_CODES
from heliograph.server.delivery.counters import DeliveryCounters
from heliograph.server.delivery.delivery_metrics import delivery_families
from heliograph.server.metrics import Metrics

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ROOT: Final = Path(__file__).resolve().parent.parent
REFERENCE: Final = ROOT / "docs" / "reference"

_NOTICE: Final = "<!-- Written by scripts/generate_docs.py from {source}; do not edit. -->\n"

#: A constant's unit by a word of its name; the first that is found counts.
_UNITS: Final = (("BYTES", "bytes"), ("CHARACTERS", "characters"), ("MS", "ms"), ("S", "s"))

_SECTION: Final = re.compile(r"# --- (?P<title>.+?) -+$")


# --- errors.md ------------------------------------------------------------------------------


def errors_page() -> str:
    """Return the page of all errors, in the order of the tree's definition."""
    lines = [
        "# Errors\n",
        _NOTICE.format(source="src/heliograph/errors.py"),
        "Every error that Heliograph raises on purpose has a code that stays the same from",
        "version to version. Log lines, command line messages and metrics name it. *Retry* says",
        "whether the same call may succeed later without anybody changing anything.\n",
        "| Code | Class | Retry | Meaning | What to do |",
        "|---|---|---|---|---|",
    ]
    for code, error in errors.error_classes().items():
        if error.__module__ != errors.__name__:
            continue  # made by a test
        retry = "yes" if error.retryable else "no"
        meaning = _first_paragraph(inspect.getdoc(error) or "")
        parents = [base.__name__ for base in error.__bases__ if base is not Exception]
        name = f"`{error.__name__}`" + (f" (a `{parents[0]}`)" if parents else "")
        lines.append(f"| `{code}` | {name} | {retry} | {meaning} | {error.remedy} |")
    return "\n".join(lines) + "\n"


def _first_paragraph(docstring: str) -> str:
    """Return the first paragraph of a docstring on one line, in Markdown's quotes."""
    return " ".join(docstring.split("\n\n", maxsplit=1)[0].split()).replace("``", "`")


# --- limits.md ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limit:
    """Constants that one comment explains.

    Attributes:
        section: Title of the part of ``limits.py`` that they stand in.
        names: Their names, in order.
        reason: The comment above the first of them.
    """

    section: str
    names: tuple[str, ...]
    reason: str


def limits_page() -> str:
    """Return the page of all limits, in the order of the module."""
    lines = [
        "# Limits\n",
        _NOTICE.format(source="src/heliograph/limits.py"),
        "Nothing in Heliograph grows without a bound. Each bound has a name, which is also what",
        "errors, log lines and metrics say when it is reached. Bounds that may be set are listed",
        "with their variables in [config.md](config.md); their defaults are the figures below.",
    ]
    section = ""
    for limit in read_limits(Path(limits.__file__).read_text(encoding="utf-8")):
        if limit.section != section:
            section = limit.section
            lines += ["", f"## {section}"]
        lines.append("")
        values = (f"`{name}` = {_value_text(name, getattr(limits, name))}" for name in limit.names)
        lines += [f"**{text}**  " for text in values]
        lines.append(limit.reason)
    return "\n".join(lines) + "\n"


def read_limits(source: str) -> list[Limit]:
    """Read the sections, constants and comments of ``limits.py``.

    A comment block (lines that begin with ``#:``) explains the constants that follow it without
    an empty line or another comment in between.

    Raises:
        ValueError: If a constant has no comment.
    """
    assigned = {
        node.lineno: node.target.id
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    found: list[Limit] = []
    section, comment, names = "General", list[str](), list[str]()
    for number, line in enumerate([*source.splitlines(), ""], start=1):
        if title := _SECTION.match(line):
            section = title["title"]
        elif number in assigned:
            if not comment:
                message = f"limits.py: {assigned[number]} has no comment that says why"
                raise ValueError(message)
            names.append(assigned[number])
        elif line.startswith("#:") or not line.strip():
            if names:
                found.append(Limit(section, tuple(names), " ".join(" ".join(comment).split())))
                comment, names = [], []
            comment += [line.removeprefix("#:")] if line.strip() else []
    return found


def _value_text(name: str, value: object) -> str:
    """Return a value with its unit, bytes in their usual multiples too."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return f"`{value!r}`"
    words = name.split("_")
    unit = next((unit for word, unit in _UNITS if word in words), "")
    text = f"{value:,} {unit}".rstrip()
    for size, multiple in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if unit == "bytes" and value >= size and value % size == 0:
            return f"{text} ({int(value // size):,} {multiple})"
    return text


# --- close-codes.md --------------------------------------------------------------------------


def close_codes_page() -> str:
    """Return the page of the codes that a socket is closed with, in numeric order."""
    lines = [
        "# Close codes\n",
        _NOTICE.format(source="src/heliograph/core/wire/close_codes.py"),
        "What the close frame of a WebSocket says, and the `code` label of the metric that counts",
        "closes. *Again* says whether connecting again with the same client may work. Codes below",
        "3000 are those of RFC 6455; 3000 to 3499 are ours and mean: connect again.\n",
        "| Code | Name | Again | Meaning |",
        "|---|---|---|---|",
    ]
    for code in CLOSE_CODES:
        again = "yes" if code.retryable else "no"
        lines.append(f"| {code.number} | `{code.name}` | {again} | {_cell(code.meaning)} |")
    return "\n".join(lines) + "\n"


# --- config.md ------------------------------------------------------------------------------


def config_page() -> str:
    """Return the page of all settings, in the order of their classes."""
    lines = [
        "# Settings\n",
        _NOTICE.format(source="src/heliograph/config/"),
        "Everything is set by environment variables. All that are missing or malformed are named",
        "in one message, and the program ends with exit code 2. Where several are listed, the",
        "first is ours and the others are those that users of Supabase have already; set to",
        "different values they are an error. An empty variable counts as absent unless its",
        "description says that empty means something. Variables that begin with `HELIOGRAPH_` and",
        "are none of these cause a warning. Values marked *secret* are never printed or logged.\n",
        "## Database, keys and behaviour\n",
        *_setting_rows(Settings),
        "\n## Bounds\n",
        "Their reasons, and the bounds that can not be changed, are in [limits.md](limits.md).\n",
        *_setting_rows(Bounds),
    ]
    return "\n".join(lines) + "\n"


def _setting_rows(settings_class: "type[DataclassInstance]") -> list[str]:
    """Return the table of one settings class."""
    rows = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for name, setting in settings_of(settings_class).items():
        variables = " or ".join(f"`{variable}`" for variable in setting.variables)
        default = f"{default_text(settings_class, name)} {setting.unit}".strip()
        marks = [
            mark
            for mark, is_set in (
                ("secret", setting.is_secret),
                ("may be empty", setting.empty_is_value),
            )
            if is_set
        ]
        meaning = setting.meaning + (f" *({', '.join(marks)})*" if marks else "")
        rows.append(f"| {variables} | {_cell(default)} | {_cell(meaning)} |")
    return rows


# --- metrics.md -----------------------------------------------------------------------------


def metrics_page() -> str:
    """Return the page of all metrics: those of the server, then those of delivery."""
    lines = [
        "# Metrics\n",
        _NOTICE.format(source="src/heliograph/server/"),
        "`GET /metrics` answers in Prometheus' text format. Labels are words of ours: codes,",
        "reasons, names of events and queues; never a table, a topic, a role or anything that a",
        "client chose. A counter with labels appears when it first counts. Sizes are in bytes,",
        "times in seconds. Keep the address away from the public.\n",
        "| Metric | Kind | Labels | Meaning |",
        "|---|---|---|---|",
    ]
    metrics = Metrics()
    labels = {
        next(iter(metric.describe())).name: metric._labelnames  # noqa: SLF001 - there is no getter
        for metric in vars(metrics).values()
        if isinstance(metric, MetricWrapperBase)
    }
    families = [
        *metrics.registry.collect(),
        *delivery_families(DeliveryCounters(), forged_messages=0, failed_tasks=0),
    ]
    for family in sorted(families, key=lambda family: family.name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        own = labels.get(family.name) or getattr(family, "_labelnames", None) or ()
        told = ", ".join(f"`{label}`" for label in own)
        lines.append(f"| `{name}` | {family.type} | {told} | {_cell(family.documentation)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return text that does not end a table's cell."""
    return " ".join(text.replace("|", "\\|").split())


# --- pages ----------------------------------------------------------------------------------


def pages() -> Mapping[Path, str]:
    """Return the content of every generated page by its path."""
    return {
        REFERENCE / "errors.md": errors_page(),
        REFERENCE / "limits.md": limits_page(),
        REFERENCE / "config.md": config_page(),
        REFERENCE / "close-codes.md": close_codes_page(),
        REFERENCE / "metrics.md": metrics_page(),
    }


def main() -> int:
    """Write the pages, or with --check compare them; return the exit code."""
    is_check = sys.argv[1:] == ["--check"]
    differing = [
        path
        for path, text in pages().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in differing:
        name = path.relative_to(ROOT)
        if is_check:
            print(f"{name} differs from the code; run `make docs`", file=sys.stderr)
        else:
            path.write_text(pages()[path], encoding="utf-8")
            print(f"wrote {name}")
    return 1 if is_check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
