"""Whether a subscription goes on where its client was, and why not.

Asked without an await between the arrival of the new subscription's snapshot and its
registration. What was received by then is looked at here; what comes later is dispatched to the
subscription, which is told of it at its place.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heliograph.core.changelog.position import SEQUENCE_END, Fingerprint, Position
from heliograph.core.changelog.ring import Ring
from heliograph.core.matching.position_request import PositionRequest
from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import RemoteProtocolError
from heliograph.server.delivery.channel import END_OF_TRANSACTION, Place, SubscribedChannel
from heliograph.server.delivery.channel_marks import ChannelMarks
from heliograph.server.delivery.continuity import Continuity
from heliograph.server.delivery.fingerprints import RightsFingerprints
from heliograph.server.delivery.late_writers import LateWriters
from heliograph.server.delivery.marks import PositionMarks
from heliograph.server.delivery.rights_log import RightsLog
from heliograph.server.delivery.rights_watch import ProvenRights

if TYPE_CHECKING:
    from heliograph.server.delivery.groups import BindingGroup
    from heliograph.server.delivery.lane import Lane


@dataclass(frozen=True, slots=True)
class ResumingParts:
    """What the decision is made from.

    Attributes:
        ring: What is kept.
        continuity: The epoch.
        marks: Looks after channels that keep positions.
        fingerprints: Of rights.
        rights_log: Changes of rights received so far.
        late_writers: For whose end positions wait.
    """

    ring: Ring
    continuity: Continuity
    marks: PositionMarks
    fingerprints: RightsFingerprints
    rights_log: RightsLog
    late_writers: LateWriters


@dataclass(frozen=True, slots=True)
class Resumption:
    """A subscription goes on.

    Attributes:
        place: Everything up to here was delivered.
        proven: What decides rights is the same as it was there.
    """

    place: Place
    proven: ProvenRights


class Resuming:
    """See the module; belongs to the event loop."""

    def __init__(self, parts: ResumingParts) -> None:
        """Wire the parts."""
        self._parts = parts

    def add_marks(
        self,
        channel: SubscribedChannel,
        lane: "Lane",
        subscription: Fingerprint,
        groups: Collection["BindingGroup"],
    ) -> ChannelMarks:
        """Have a channel told its positions, once it is filed under its groups.

        Args:
            channel: The channel, which has not started.
            lane: Its lane.
            subscription: Fingerprint of who subscribed to what.
            groups: The channel's groups; a wildcard gets more later.
        """
        standing = _Standing(self._parts.fingerprints, self._parts.late_writers, groups)
        channel.marks = ChannelMarks(
            self._parts.marks,
            channel,
            lane,
            subscription=subscription,
            standing=standing,
        )
        return channel.marks

    def have_rights_changed_since(
        self, transaction: Transaction, groups: Collection["BindingGroup"]
    ) -> bool:
        """Tell whether a transaction received before, or any behind it, may have changed rights."""
        before = Lsn(transaction.commit_lsn - 1)
        tables, reads = self._parts.fingerprints.relations(groups)
        return self._parts.rights_log.changed_after(before, tables, reads)

    def decide(
        self,
        request: PositionRequest,
        subscription: Fingerprint,
        groups: Collection["BindingGroup"],
        insert_lsn: Lsn,
    ) -> Resumption | str | None:
        """Return where a new subscription goes on, or the reason for a ``resync``.

        Args:
            request: What its client said.
            subscription: Fingerprint of who subscribes to what.
            groups: Its groups.
            insert_lsn: Nothing has committed behind it when the subscription was asked for.

        Returns:
            None if the client said nothing, so that it begins.
        """
        if request.is_malformed:
            return "position_not_valid"
        if request.since is None:
            return None
        try:
            since = self._parts.continuity.codec.decode(request.since)
        except RemoteProtocolError:
            return "position_not_valid"
        return self._why_not(since, subscription, groups, insert_lsn) or self._resumption(
            since, groups
        )

    def _why_not(
        self,
        since: Position,
        subscription: Fingerprint,
        groups: Collection["BindingGroup"],
        insert_lsn: Lsn,
    ) -> str | None:
        """Return the reason for a ``resync``, the widest first; None if there is none."""
        parts = self._parts
        reasons = (
            ("epoch_changed", since.epoch != parts.continuity.epoch),
            ("subscription_changed", since.subscription != subscription),
            ("position_in_the_future", since.lsn >= insert_lsn),
            ("position_expired", _place(since).read_behind() < parts.ring.floor),
            ("rights_changed", self._have_rights_changed(since, groups)),
        )
        return next((reason for reason, applies in reasons if applies), None)

    def _have_rights_changed(self, since: Position, groups: Collection["BindingGroup"]) -> bool:
        """Tell whether rights may have changed since a position, as far as is known by now."""
        fingerprints = self._parts.fingerprints
        return (
            since.rights != fingerprints.rights(groups)
            or fingerprints.reads_unfollowed(groups)
            or self._parts.rights_log.changed_after(
                _place(since).read_behind(), *fingerprints.relations(groups)
            )
        )

    def _resumption(self, since: Position, groups: Collection["BindingGroup"]) -> Resumption:
        place = _place(since)
        parts = self._parts.fingerprints.parts(groups)
        return Resumption(place, ProvenRights(place.read_behind(), parts))


class _Standing:
    """Implements `channel_marks.Standing`; makes the fingerprint anew when it may be another."""

    __slots__ = ("_fingerprint", "_groups", "_late_writers", "_made_for", "_makes")

    def __init__(
        self,
        makes: RightsFingerprints,
        late_writers: LateWriters,
        groups: Collection["BindingGroup"],
    ) -> None:
        self._makes = makes
        self._late_writers = late_writers
        self._groups = groups
        self._made_for: object = None
        self._fingerprint = Fingerprint(0)

    def rights(self) -> Fingerprint:
        made_for = (*self._makes.version, *(group.version for group in self._groups))
        if made_for != self._made_for:
            self._fingerprint = self._makes.rights(self._groups)
            self._made_for = made_for
        return self._fingerprint

    def is_complete(self) -> bool:
        # A wildcard stands for what is published.
        return all(
            group.entry.description.is_published or group.parameters.is_wildcard
            for group in self._groups
        )

    def has_late_writers(self) -> bool:
        return bool(self._late_writers) and self._late_writers.concern(
            group.entry.description.oid for group in self._groups
        )


def _place(since: Position) -> Place:
    is_whole = since.sequence == SEQUENCE_END
    return Place(since.lsn, END_OF_TRANSACTION if is_whole else since.sequence)
