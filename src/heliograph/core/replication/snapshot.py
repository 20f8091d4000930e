"""Which transactions a PostgreSQL snapshot sees.

The text form of ``pg_current_snapshot()`` is ``xmin:xmax:xip_list`` with 64-bit transaction ids;
a Begin message carries only the low 32 bits, which are widened before they are compared.
Source: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT
"""

from dataclasses import dataclass
from typing import Final

from heliograph.errors import RemoteProtocolError

_EPOCH: Final = 1 << 32
_HALF_EPOCH: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The set of transactions that were committed and visible at one moment.

    Attributes:
        xmin: Lowest transaction id still running; everything below it is over.
        xmax: First transaction id not yet assigned; it and everything above is invisible.
        running: Ids from xmin to below xmax that were running.
    """

    xmin: int
    xmax: int
    running: frozenset[int]

    def sees(self, xid: int) -> bool:
        """Tell whether a committed transaction was visible.

        Args:
            xid: The low 32 bits of the id, as ``Begin`` carries it. The transaction must have
                committed; for an aborted one the answer means nothing.
        """
        wide = widen_xid(xid, near=self.xmax)
        if wide < self.xmin:
            return True
        return wide < self.xmax and wide not in self.running


def widen_xid(xid: int, *, near: int) -> int:
    """Return the 64-bit id nearest to ``near`` whose low 32 bits are ``xid``.

    PostgreSQL keeps all live ids within 2^31 of each other, so the nearest one is the right one.
    """
    wide = near - near % _EPOCH + xid
    if wide - near > _HALF_EPOCH and wide >= _EPOCH:
        return wide - _EPOCH
    if near - wide > _HALF_EPOCH:
        return wide + _EPOCH
    return wide


def precedes(xid: int, other: int) -> bool:
    """Tell whether a transaction began to write before another; by the low 32 bits of their ids.

    True of one that is behind the other by more than 2^31, as for PostgreSQL itself.
    """
    return 0 < (other - xid) % _EPOCH < _HALF_EPOCH


def parse_snapshot(text: str) -> Snapshot:
    """Read the text form ``xmin:xmax:xip,xip,…``.

    Raises:
        RemoteProtocolError: If the text has another form.
    """
    parts = text.split(":")
    try:
        xmin, xmax = int(parts[0]), int(parts[1])
        running = frozenset(int(xid) for xid in parts[2].split(",") if xid)
    except (IndexError, ValueError) as cause:
        message = f"expected a snapshot xmin:xmax:xip, got {text[:80]!r}"
        raise RemoteProtocolError(message) from cause
    return Snapshot(xmin, xmax, running)
