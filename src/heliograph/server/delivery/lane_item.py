"""What waits in a lane: parts of transactions, and marks that are told at their place."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heliograph import limits
from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.transaction import Transaction
from heliograph.server.delivery.channel import Place, SubscribedChannel
from heliograph.server.delivery.groups import Match

if TYPE_CHECKING:
    from heliograph.core.matching.change_json import ChangeEncoder
    from heliograph.core.matching.visibility import Told


class DispatchedTransaction:
    """A transaction on its way, with what was encoded of it so far.

    Attributes:
        transaction: The transaction (of an oversize one: its mark).
        renderings: ``data`` objects by (id of the change, what is told, encoder): a change is
            encoded once for all lanes that show the same of it.
    """

    __slots__ = ("renderings", "transaction")

    def __init__(self, transaction: Transaction) -> None:
        """Begin with nothing encoded."""
        self.transaction = transaction
        self.renderings: dict[tuple[int, Told, ChangeEncoder], bytes] = {}


@dataclass(slots=True, eq=False)
class FromRing:
    """One attempt to give items to a channel that lags.

    Attributes:
        is_stalled: Whether the channel had no room for all of them; the rest waits.
        taken: Place of the last change that it took.
    """

    is_stalled: bool = False
    taken: Place | None = None


@dataclass(slots=True, eq=False)
class LaneItem:
    """What one transaction means to one lane.

    Attributes:
        dispatched: The transaction.
        matches: Its matches, in order of the changes.
        only: The one channel that it is meant for, which lags; None for all that are live.
        from_ring: Set with ``only``: the attempt to give it.
        is_last: Whether nothing of the transaction comes behind it.
        previous_sequence: Of the last change handed over. A change of keys that had to be split
            gives two changes of one sequence, which are told together.
    """

    dispatched: DispatchedTransaction
    matches: list[Match]
    only: SubscribedChannel | None = None
    from_ring: FromRing | None = None
    is_last: bool = True
    previous_sequence: int = -1

    @property
    def commit_lsn(self) -> Lsn:
        """Commit position of the transaction."""
        return self.dispatched.transaction.commit_lsn

    def tables(self) -> set[int]:
        """Return the oids of the tables whose changes it holds."""
        return {match.change.relation.oid for match in self.matches}

    def needs_judge(self) -> bool:
        """Tell whether PostgreSQL must be asked about some rows."""
        for match in self.matches:  # noqa: SIM110 - a generator costs thrice as much
            if match.group.needs_judge():
                return True
        return False

    def stale_reason(self) -> str | None:
        """Return why it is not delivered: a table or rights were read anew since it was matched."""
        for match in self.matches:
            if match.is_stale():
                return match.group.stale_reason
        return None

    def drop_untaken(self) -> bool:
        """Drop what only channels that lag would get, who read it for themselves.

        Returns:
            False if that is everything.
        """
        if self.only is None:
            kept: list[Match] = []
            for match in self.matches:
                channels = match.group.channels
                if any(channel.lag is None for channel in channels):
                    kept.append(match)
                else:
                    for channel in channels:
                        channel.passed_over = self.commit_lsn
            self.matches = kept
        return bool(self.matches)

    def channels(self) -> set[SubscribedChannel]:
        """Return the channels that it is for."""
        if self.only is not None:
            # Who lagged and was told something is live again, or further on: the rest is not for
            # it any more.
            lag = self.only.lag
            end = Place(self.commit_lsn, self.matches[-1].change.sequence if self.matches else 0)
            is_over = self.from_ring is not None and (lag is None or lag >= end)
            return set() if is_over else {self.only}
        transaction = self.dispatched.transaction
        return {
            channel
            for match in self.matches
            for channel in match.group.channels
            if channel.lag is None and channel.is_owed(transaction.xid, transaction.commit_lsn)
        }

    def size_bytes(self) -> int:
        """Estimate the memory that its changes keep, as their share of the transaction."""
        transaction = self.dispatched.transaction
        return transaction.size_bytes * len(self.matches) // max(1, transaction.row_count)

    def skip_to(self, place: Place) -> bool:
        """Keep what comes behind a place; false if that is nothing."""
        commit_lsn = self.commit_lsn
        self.matches = [
            match for match in self.matches if Place(commit_lsn, match.change.sequence) > place
        ]
        return bool(self.matches)

    def parts(self) -> list["LaneItem"]:
        """Cut it into pieces of which each can be judged within the time of one judgement."""
        size = limits.LANE_ITEM_CHANGES_MAX
        matches = self.matches
        if len(matches) <= size:
            return [self]
        parts: list[LaneItem] = []
        start = 0
        while start < len(matches):
            end = min(start + size, len(matches))
            # Matches of one change, and changes of one sequence, stay together.
            while end < len(matches) and (
                matches[end].change.sequence == matches[end - 1].change.sequence
            ):
                end += 1
            is_last = self.is_last and end == len(matches)
            part = LaneItem(self.dispatched, matches[start:end], self.only, is_last=is_last)
            parts.append(part)
            start = end
        return parts


@dataclass(frozen=True, slots=True)
class LaneMark:
    """Something to be told at its place in the order of a lane.

    Attributes:
        commit_lsn: Of the transaction that is the reason.
        tell: Tells it.
    """

    commit_lsn: Lsn
    tell: Callable[[], None]
