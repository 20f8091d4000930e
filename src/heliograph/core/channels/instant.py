"""Now, on both clocks: machines never read one themselves."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment.

    Attributes:
        monotonic_s: Seconds that never go back; deadlines are in these.
        unix_s: Seconds since 1970-01-01 UTC; token times are in these.
    """

    monotonic_s: float
    unix_s: float
