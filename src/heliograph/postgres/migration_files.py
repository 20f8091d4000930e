"""The numbered SQL files in ``migrations/`` and what their headers say about them.

A file is ``NNNN_name.sql``. It begins with comment lines ``-- key: value``:

``title``
    What it installs, for people.
``modes``
    ``fresh`` (our own database), ``attach`` (an existing Supabase project), or both.
``requires``
    Names of `DatabaseRights.lacks`; a migration whose requirement is missing stays pending.
``ensures``
    Optional. What may be lost behind the ledger's back, because roles belong to the cluster and
    not to the database: if it does not hold, the migration is run again.
``essential``
    ``yes`` if nothing works without it.
``without``, ``remedy``
    What is lost while it is missing, and what to run. ``{database}`` and ``{user}`` are filled in.
``action``
    Optional. The name of a step written in Python; the SQL then only explains it.

Invariant: a file that has been released never changes; its checksum is in every ledger.
"""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Final

from heliograph.errors import LocalProtocolError

_FILE_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_HEADER_LINE: Final = re.compile(r"-- ([a-z]+): (.+)")


class MigrationMode(StrEnum):
    """Whose database it is."""

    #: Ours: roles, schemas and publications are made as in a Supabase project.
    FRESH = "fresh"
    #: An existing Supabase project: nothing that is not ours is altered.
    ATTACH = "attach"


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file.

    Attributes:
        version: The number in its name; ascending order is the order of execution.
        name: The rest of the name.
        title: What it installs.
        modes: In which modes it is run.
        requires: Rights without which it can not be run.
        ensures: A state that is checked although the ledger says that it was run, or None.
        is_essential: Whether the database can not be served without it.
        without: What is lost while it is missing.
        remedy: What to run to be able to run it, or instead of it.
        action: Name of the Python step that does the work, or None.
        text: The whole file.
    """

    version: int
    name: str
    title: str
    modes: frozenset[MigrationMode]
    requires: tuple[str, ...]
    ensures: str | None
    is_essential: bool
    without: str
    remedy: str
    action: str | None
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, hexadecimal; the ledger keeps it."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def label(self) -> str:
        """The file's name without its ending: ``0002_roles``."""
        return f"{self.version:04}_{self.name}"


def read_migration(file_name: str, text: str) -> Migration:
    """Read one file's name and header.

    Raises:
        LocalProtocolError: If name or header do not have the form above.
    """
    name = _FILE_NAME.fullmatch(file_name)
    if name is None:
        message = f"migration files are named NNNN_name.sql, got {file_name!r}"
        raise LocalProtocolError(message)
    header: dict[str, str] = {}
    for line in text.splitlines():
        match = _HEADER_LINE.fullmatch(line)
        if match is None:
            break
        header[match[1]] = match[2].strip()
    missing = {"title", "modes", "without"} - header.keys()
    if missing:
        message = f"{file_name}: the header lacks {', '.join(sorted(missing))}"
        raise LocalProtocolError(message)
    return Migration(
        version=int(name[1]),
        name=name[2],
        title=header["title"],
        modes=frozenset(MigrationMode(mode) for mode in _words(header["modes"])),
        requires=_words(header.get("requires", "")),
        ensures=header.get("ensures"),
        is_essential=header.get("essential") == "yes",
        without=header["without"],
        remedy=header.get("remedy", "run `heliograph migrate` again"),
        action=header.get("action"),
        text=text,
    )


@cache
def load_migrations() -> tuple[Migration, ...]:
    """Return all migrations of this version of Heliograph, in order of execution.

    Raises:
        LocalProtocolError: If two files have one number.
    """
    folder = resources.files("heliograph.postgres") / "migrations"
    found = sorted(
        (
            read_migration(entry.name, entry.read_text(encoding="utf-8"))
            for entry in folder.iterdir()
            if entry.name.endswith(".sql")
        ),
        key=lambda migration: migration.version,
    )
    if len({migration.version for migration in found}) != len(found):
        message = "two migrations have the same number"
        raise LocalProtocolError(message)
    return tuple(found)


def migrations_of(mode: MigrationMode) -> tuple[Migration, ...]:
    """Return the migrations of one mode, in order of execution."""
    return tuple(migration for migration in load_migrations() if mode in migration.modes)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
