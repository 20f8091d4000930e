"""The clock seam: shells ask it for the time, tests replace it with a virtual one."""

from typing import Protocol


class Clock(Protocol):
    """Two clocks, because a wall clock may be set and a monotonic one may not be shown."""

    def monotonic_s(self) -> float:
        """Return seconds that never go back; for deadlines and durations."""
        ...

    def unix_s(self) -> float:
        """Return seconds since 1970-01-01 UTC; for token times and timestamps."""
        ...
