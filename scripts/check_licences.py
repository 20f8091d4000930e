"""Refuse dependencies whose licence would reach into programs that use Heliograph.

Usage: ``python scripts/check_licences.py``

Every distribution in the closure of the extras (base, server, embedded, dev) and of the build
tools must carry a licence from the list below. GPL and AGPL are refused. LGPL and MPL are allowed
where a record in ``docs/decisions/`` names the distribution: somebody has looked at what the
licence asks for. So is, for tests only, a wheel that bundles a GPL library which is never loaded.

The licence is read from the installed metadata: the SPDX expression, else the classifiers, else
the free text, else the first lines of the licence file.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parent.parent
DECISIONS: Final = ROOT / "docs" / "decisions"
BUILD_PINS: Final = ROOT / "requirements" / "build.txt"

#: What is shipped to users; the rest (dev, build) is only used here.
SHIPPED_EXTRAS: Final = ("", "server", "embedded")
ALL_EXTRAS: Final = (*SHIPPED_EXTRAS, "dev")

#: Licence families by the first pattern that matches, most demanding first.
FAMILIES: Final = (
    ("refused", r"AGPL|Affero"),
    ("recorded", r"\bLGPL|Lesser General Public"),
    ("refused", r"\bGPL|GNU General Public"),
    ("recorded", r"\bMPL|Mozilla Public"),
    ("free", r"\bMIT\b|\bMIT-0\b|Permission is hereby granted, free of charge"),
    ("free", r"\bBSD\b|Redistribution and use in source and binary forms"),
    ("free", r"\bApache\b|\bISC\b|\bPSF-2\.0\b|Python Software Foundation|\b0BSD\b"),
)

#: Libraries under the GPL that wheels are known to bundle beside their own code.
GPL_LIBRARIES: Final = re.compile(r"\blib(readline|gdbm|history)[-.\w]*\.(so|dylib)")


def closure(extras: Iterable[str]) -> set[str]:
    """Return the names of all distributions that Heliograph with these extras needs here.

    Args:
        extras: Names of extras; an empty string means the base install.

    Raises:
        PackageNotFoundError: If one of them is not installed.
    """
    seen: set[tuple[str, str]] = set()
    waiting = [("heliograph", extra) for extra in extras]
    while waiting:
        name, extra = node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        for text in metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is not None and not needed.marker.evaluate({"extra": extra}):
                continue
            wanted = canonicalize_name(needed.name)
            waiting.append((wanted, ""))
            waiting.extend((wanted, inner) for inner in needed.extras)
    return {name for name, _ in seen} - {"heliograph"}


def build_tools() -> set[str]:
    """Return the names pinned in requirements/build.txt."""
    lines = BUILD_PINS.read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(line.split("==")[0]) for line in lines if "==" in line}


def licence_text(distribution: metadata.Distribution) -> str:
    """Return the most precise statement of the licence that the metadata has."""
    fields = distribution.metadata
    expressions = fields.get_all("License-Expression")
    if expressions:
        return str(expressions[0])
    classifiers = [c for c in fields.get_all("Classifier") or [] if c.startswith("License ::")]
    if classifiers:
        return "; ".join(classifier.rsplit(" :: ", 1)[-1] for classifier in classifiers)
    free_texts = fields.get_all("License")
    if free_texts:
        return " ".join(str(free_texts[0]).split())[:200]
    for name in fields.get_all("License-File") or []:
        for file in distribution.files or []:
            if file.name == Path(name).name and ".dist-info" in str(file):
                return " ".join(file.read_text(encoding="utf-8").split())[:400]
    return ""


def family(licence: str) -> str:
    """Return ``free``, ``recorded``, ``refused`` or ``unknown``.

    An expression with OR is as free as its freest part: the choice is ours.
    """
    choices = licence.split(" OR ") if len(licence) < 100 else [licence]  # noqa: PLR2004 - an expression is short
    found = {
        next((name for name, pattern in FAMILIES if re.search(pattern, choice)), "unknown")
        for choice in choices
    }
    return min(found, key=("free", "recorded", "refused", "unknown").index)


def is_recorded(name: str) -> bool:
    """Tell whether a decision record names the distribution in code quotes."""
    return any(
        f"`{name}`" in record.read_text(encoding="utf-8") for record in DECISIONS.glob("0*.md")
    )


def faults_of(name: str, *, is_shipped: bool) -> Iterator[str]:
    """Yield what is wrong with the licence of one installed distribution."""
    distribution = metadata.distribution(name)
    licence = licence_text(distribution)
    match family(licence):
        case "refused":
            yield f"{name}: {licence} is not allowed"
        case "recorded" if not is_recorded(name):
            yield f"{name}: {licence} needs a record in docs/decisions/ that names `{name}`"
        case "unknown":
            yield f"{name}: licence {licence!r} is not on the list in {Path(__file__).name}"
        case _:
            pass
    bundled = sorted(f.name for f in distribution.files or [] if GPL_LIBRARIES.search(f.name))
    if bundled and is_shipped:
        yield f"{name}: bundles {', '.join(bundled)} (GPL) and would be shipped to users"
    elif bundled and not is_recorded(name):
        yield f"{name}: bundles {', '.join(bundled)} (GPL), needs a record naming `{name}`"


def main() -> int:
    """Print every fault and return 1, or one line and 0."""
    shipped = closure(SHIPPED_EXTRAS)
    everything = closure(ALL_EXTRAS) | build_tools()
    faults = [
        fault
        for name in sorted(everything)
        for fault in faults_of(name, is_shipped=name in shipped)
    ]
    for fault in faults:
        print(f"licence: {fault}", file=sys.stderr)
    if faults:
        return 1
    print(f"licences: {len(everything)} distributions, {len(shipped)} of them shipped: all allowed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
