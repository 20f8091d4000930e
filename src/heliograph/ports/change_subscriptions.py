"""The seam between channels (who is connected) and change delivery (what they get to see)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from heliograph.ports.identity import Identity


@dataclass(frozen=True, slots=True)
class ChangeBinding:
    """One entry of a join's ``postgres_changes`` list, as the client sent it.

    Attributes:
        id: The id that the join reply gave this entry; never 0. Equal entries share one id.
        parameters: The entry itself (decoded JSON object), not validated.
    """

    id: int
    parameters: Mapping[str, object]


class ChangeOutlet(Protocol):
    """Where the changes of one channel go; implemented by the channel's shell.

    All methods are called on the event loop and never block.
    """

    def send_change(self, ids: Sequence[int], data: bytes) -> None:
        """Queue one change.

        Args:
            ids: Binding ids that match, in join order, without repetition.
            data: The ``data`` object as JSON bytes (protocol §10.1), shared by many channels.
        """
        ...

    def offer_change(self, ids: Sequence[int], data: bytes) -> bool:
        """Queue one change if `has_room`; tell whether it did.

        Both in one call, for delivery to many. Not before `ChangeSubscription.start`.

        Args:
            ids: As of `send_change`.
            data: As of `send_change`.
        """
        ...

    def send_system(
        self, *, status: str, message: str, details: Mapping[str, str] | None = None
    ) -> None:
        """Queue a ``system`` message of extension ``postgres_changes``.

        Args:
            status: ``ok`` or ``error``.
            message: The text.
            details: Further fields.
        """
        ...

    def has_room(self) -> bool:
        """Tell whether the outbound buffer is below its high mark."""
        ...

    async def wait_room(self) -> None:
        """Wait until the buffer has drained to its low mark, or the connection is gone."""
        ...

    def close_hopeless(self, message: str) -> None:
        """Close the channel with a ``system`` error that says why it can not be served."""
        ...

    def close_failed(self, message: str) -> None:
        """Close the channel over a fault of ours, so that its client joins again by itself."""
        ...


class ChangeSubscription(Protocol):
    """A live subscription of one channel."""

    def start(self) -> None:
        """Begin delivery.

        The channel calls it right after it queued the join reply and ``Subscribed to
        PostgreSQL``: what was committed since the position was fixed follows at once.
        """
        ...

    def close(self) -> None:
        """End delivery at once; idempotent."""
        ...


class ChangeSubscriptions(Protocol):
    """Makes subscriptions."""

    async def subscribe(
        self,
        *,
        bindings: Sequence[ChangeBinding],
        identity: Identity,
        outlet: ChangeOutlet,
        replaces: ChangeSubscription | None = None,
        may_resume: bool = True,
    ) -> ChangeSubscription:
        """Validate all bindings, register them and fix the stream position (promise P3).

        When this returns, every change that commits from now on, and that the identity may see,
        will be delivered after `ChangeSubscription.start`; what was committed before and visible
        to everybody is not delivered. Cancelling the call registers nothing.

        Args:
            bindings: What is subscribed to, each id once.
            identity: Who sees it.
            outlet: Where it goes.
            replaces: The channel's subscription under an earlier token. It goes on delivering;
                the channel closes it right before it starts the new one, in the same tick. What
                the old one has not delivered by then is delivered by the new one, and what it has
                delivered is not delivered again.
            may_resume: Whether a ``since`` among the bindings says where the client is. False for a
                channel that has had a subscription since it was joined: it is further on by now.

        Raises:
            SubscriptionRefusedError: With the protocol's text for the first faulty binding.
            UnavailableError: If the database does not answer in time.
        """
        ...
