"""The last step: what was judged becomes frames, and each channel takes its own.

A change is encoded once for all that are shown the same of it. A channel whose connection has no
room leaves the live flow at that place and reads from the ring (`catch_up`).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from heliograph.core.matching.visibility import OldShown, Told, without_old_values
from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.row_change import ChangeKind, RowChange
from heliograph.core.replication.transaction import Transaction
from heliograph.postgres.judge import Judgement
from heliograph.server.delivery.channel import Place, SubscribedChannel
from heliograph.server.delivery.counters import DeliveryCounters
from heliograph.server.delivery.groups import BindingGroup, Match
from heliograph.server.delivery.judging import Judging, Question
from heliograph.server.delivery.lane_item import DispatchedTransaction, FromRing, LaneItem

#: Has a channel that lags read from the ring.
BeginCatchUp = Callable[[SubscribedChannel], None]


class HandOverServices(Protocol):
    """What handing over needs from delivery as a whole."""

    counters: DeliveryCounters
    judging: Judging

    def rights_changed_by(self, transaction: Transaction, judgement: Judgement | None) -> bool:
        """Tell whether a transaction may itself have changed what its judgement depended on."""
        ...

    def note_commit(self, commit_time_us: int) -> None:
        """Note whose changes are queued for clients from now on; 0 for nobody's."""
        ...


def deliver(
    services: HandOverServices,
    item: LaneItem,
    question: Question,
    judgement: Judgement | None,
    begin_catch_up: BeginCatchUp,
) -> None:
    """Hand one transaction to its channels, in order of the changes.

    Args:
        services: Decides what is told, and counts.
        item: The transaction.
        question: What was asked about it.
        judgement: The answers; None when nothing had to be asked.
        begin_catch_up: Called for a channel that has no room any more.
    """
    judging = services.judging
    undecided: set[SubscribedChannel] = set()
    hides_old = services.rights_changed_by(item.dispatched.transaction, judgement)
    services.note_commit(item.dispatched.transaction.commit_time_us)
    for change, matches in _by_change(item.matches):
        frames: list[tuple[BindingGroup, bytes]] = []
        for match in matches:
            if judging.is_undecidable(match):
                services.counters.undecidable += 1
                undecided.update(match.group.channels)
                continue
            told = judging.told(match, question, judgement)
            if told is not None:
                told = without_old_values(told) if hides_old else told
                frames.append((match.group, _rendered(item.dispatched, match, told)))
        if len(frames) == 1 and item.only is None:
            # Not in one statement: those that take it by `send` are counted meanwhile.
            offered = _offer(item, change, *frames[0], begin_catch_up)
            services.counters.delivered += offered
        elif frames:
            _send(item, change, frames, begin_catch_up)
        item.previous_sequence = change.sequence
    services.note_commit(0)
    if undecided:
        for channel in undecided & item.channels():
            channel.resync("undecidable")


def _offer(
    item: LaneItem,
    change: RowChange,
    group: BindingGroup,
    data: bytes,
    begin_catch_up: BeginCatchUp,
) -> int:
    """Send one frame to every channel of one group, and return how many took it by an offer.

    The way of nearly every change: for a channel that is plainly live one call decides and queues;
    all others go through `_takes`.
    """
    offered = 0
    for channel, ids in tuple(group.channels.items()):
        is_plain = channel.lag is None and channel.owed is None and not channel.is_closed
        if is_plain and channel.offer is not None and channel.offer(ids, data):
            offered += 1
        elif _takes(item, change, channel, begin_catch_up):
            channel.send(ids, data)
    return offered


def _send(
    item: LaneItem,
    change: RowChange,
    frames: Sequence[tuple[BindingGroup, bytes]],
    begin_catch_up: BeginCatchUp,
) -> None:
    for channel, by_data in _by_channel(frames, item.only).items():
        # A change is taken whole: what a channel has no room for it reads from the ring.
        if _takes(item, change, channel, begin_catch_up):
            for data, many in by_data.items():
                channel.send(many, data)


def _takes(
    item: LaneItem, change: RowChange, channel: SubscribedChannel, begin_catch_up: BeginCatchUp
) -> bool:
    """Tell whether a channel takes a change now; one without room lags from here on."""
    if item.from_ring is not None:
        place = Place(item.commit_lsn, change.sequence)
        return _takes_from_ring(item.from_ring, place, channel)
    transaction = item.dispatched.transaction
    if channel.lag is not None or channel.is_closed:
        return False
    if channel.owed is not None and not _is_owed(transaction, channel, channel.owed.insert_lsn):
        return False
    if channel.has_room():
        return True
    if change.sequence == item.previous_sequence:
        # The other half of a change of keys: told together or not at all.
        return True
    channel.lag = Place(transaction.commit_lsn, change.sequence - 1)
    begin_catch_up(channel)
    return False


def _is_owed(transaction: Transaction, channel: SubscribedChannel, insert_lsn: Lsn) -> bool:
    """Tell whether a transaction belongs to a subscription that has just begun."""
    if transaction.commit_lsn >= insert_lsn:
        # A lane goes on in commit order: from here on all is owed.
        channel.owed = None
        return True
    return channel.is_owed(transaction.xid, transaction.commit_lsn)


def _takes_from_ring(reading: FromRing, place: Place, channel: SubscribedChannel) -> bool:
    """Tell the same of a channel that catches up; what it was given before is passed over."""
    if place == reading.taken:
        return True
    if reading.is_stalled or channel.lag is None or channel.lag >= place:
        return False
    if not channel.has_room():
        reading.is_stalled = True
        return False
    channel.lag = reading.taken = place
    return True


def _by_change(matches: Sequence[Match]) -> list[tuple[RowChange, list[Match]]]:
    found: list[tuple[RowChange, list[Match]]] = []
    for match in matches:
        if not found or found[-1][0] is not match.change:
            found.append((match.change, []))
        found[-1][1].append(match)
    return found


def _by_channel(
    frames: Sequence[tuple[BindingGroup, bytes]], only: SubscribedChannel | None
) -> dict[SubscribedChannel, dict[bytes, list[int]]]:
    """Collect the ids of all matching bindings of a channel: one frame for equal data."""
    found: dict[SubscribedChannel, dict[bytes, list[int]]] = {}
    for group, data in frames:
        members = group.channels.items() if only is None else _one_of(group, only)
        for channel, ids in members:
            known = found.setdefault(channel, {}).setdefault(data, [])
            known.extend(binding_id for binding_id in ids if binding_id not in known)
    return found


def _one_of(
    group: BindingGroup, channel: SubscribedChannel
) -> list[tuple[SubscribedChannel, tuple[int, ...]]]:
    ids = group.channels.get(channel)
    return [] if ids is None else [(channel, ids)]


def _rendered(dispatched: DispatchedTransaction, match: Match, told: Told) -> bytes:
    """Return the ``data`` object, encoded once per (type, old row shown, encoder)."""
    change, group = match.change, match.group
    encoder = group.entry.encoder(group.shown)
    key = (id(change), told, encoder)
    found = dispatched.renderings.get(key)
    if found is None:
        found = dispatched.renderings[key] = encoder.encode(
            told.kind,
            None if told.kind is ChangeKind.DELETE else change.new,
            None if told.old is OldShown.NOTHING else change.old,
            dispatched.transaction.commit_time_us,
            group.entry.description.primary_key if told.old is OldShown.KEY else None,
        )
    return found
