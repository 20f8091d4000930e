"""The seam to whatever keeps, outside PostgreSQL, what judging the rows of each table reads."""

from collections.abc import Collection, Mapping
from typing import Protocol


class ReadsStore(Protocol):
    """Keeps one mapping, so that a restart does not have to find it out again.

    Whatever it holds is safe: a client whose position was told under other reads loads anew.
    """

    def load(self) -> dict[int, set[int]]:
        """Return by table what was kept; empty if nothing was, or nothing that can be read."""
        ...

    def save(self, reads: Mapping[int, Collection[int]]) -> None:
        """Replace what is kept."""
        ...
