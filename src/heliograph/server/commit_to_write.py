"""How long changes take from their commit to the sockets: a histogram of plain integers.

One figure for each write to a socket that holds changes, of the oldest change in it; so the time
that a change waited in a full outbound buffer counts. Of writes of the same change in one turn of
the event loop the lag is computed once.
"""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from heliograph.ports.clock import Clock

_NAME: Final = "heliograph_commit_to_write_seconds"
_TEXT: Final = (
    "Time from the commit in PostgreSQL to the write to a client's socket, for each write with"
    " changes: of the oldest one in it."
)


class CommitToWrite(Collector):
    """Counts writes by their lag.

    Attributes:
        current_us: Commit time of what is being queued now, microseconds since 1970; 0 for what has
            none. Set by delivery, read by the outbound buffers.
    """

    __slots__ = (
        "_bounds_s",
        "_clock",
        "_counts",
        "_last_bucket",
        "_last_lag_s",
        "_last_us",
        "_sum_s",
        "current_us",
    )

    def __init__(self, bounds_s: tuple[float, ...], clock: Clock) -> None:
        """Begin with nothing written.

        Args:
            bounds_s: Upper ends of the buckets, ascending; one without an end follows them.
            clock: For the lag.
        """
        self.current_us = 0
        self._bounds_s = bounds_s
        self._clock = clock
        self._counts = [0] * (len(bounds_s) + 1)
        self._sum_s = 0.0
        self._last_us = 0
        self._last_lag_s = 0.0
        self._last_bucket = 0

    def written(self, commit_us: int) -> None:
        """Count one write; a clock behind PostgreSQL's counts as no lag.

        Args:
            commit_us: Commit time of the oldest change in it.
        """
        if commit_us != self._last_us:
            self._last_us = commit_us
            self._last_lag_s = max(0.0, self._clock.unix_s() - commit_us / 1e6)
            self._last_bucket = bisect_left(self._bounds_s, self._last_lag_s)
        self._sum_s += self._last_lag_s
        self._counts[self._last_bucket] += 1

    def end_turn(self) -> None:
        """Compute lags anew: time has passed."""
        self._last_us = 0

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Return the one family."""
        ends = [*map(str, self._bounds_s), "+Inf"]
        buckets = list(zip(ends, accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(_NAME, _TEXT, buckets=buckets, sum_value=self._sum_s)
