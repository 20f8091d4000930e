"""The real clocks: the only place that reads them."""

import time


class SystemClock:
    """Implements `ports.clock.Clock`."""

    def monotonic_s(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()  # noqa: TID251 - this is the clock that everybody else asks

    def unix_s(self) -> float:
        """Return seconds since 1970-01-01 UTC."""
        return time.time()  # noqa: TID251 - as above
