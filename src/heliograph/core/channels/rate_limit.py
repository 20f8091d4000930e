"""Token bucket: a steady rate with a bounded burst, without a timer."""


class TokenBucket:
    """Allows ``rate_per_s`` events in the long run and ``burst`` at once."""

    __slots__ = ("_burst", "_level", "_rate_per_s", "_updated_s")

    def __init__(self, *, rate_per_s: float, burst: float, now_s: float) -> None:
        """Start full."""
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._level = burst
        self._updated_s = now_s

    def take(self, now_s: float) -> bool:
        """Take one token; False if there is none (nothing is taken then)."""
        elapsed_s = max(0.0, now_s - self._updated_s)
        self._level = min(self._burst, self._level + elapsed_s * self._rate_per_s)
        self._updated_s = now_s
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return True
