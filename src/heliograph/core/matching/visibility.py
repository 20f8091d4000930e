"""What a subscriber is told about a change, once it is known which versions it may see.

The table of `visibility.md` §1 and `security.md` §3 as a pure function. "Seen" always includes the
subscription's filter.
"""

from dataclasses import dataclass
from enum import Enum

from heliograph.core.replication.row_change import ChangeKind


class DeleteVisibility(Enum):
    """Who learns of a DELETE (setting ``delete_visibility``)."""

    #: With REPLICA IDENTITY FULL whoever saw the old row; without it the key goes to every
    #: subscriber of the table, as in Supabase Realtime.
    AUTO = "auto"
    #: With FULL as AUTO; without it nobody is told.
    STRICT = "strict"
    #: The key goes to every subscriber of the table whose filter passes, always.
    COMPATIBLE = "compatible"


class LeaveEvents(Enum):
    """What a subscriber is told of a row that leaves its view (setting ``leave_events``)."""

    DELETE = "delete"
    SILENT = "silent"


class Verdict(Enum):
    """Whether a row version is seen."""

    YES = "yes"
    NO = "no"
    #: The version is not known well enough: there is no such version, or the WAL does not carry
    #: what the filter or the policy reads.
    UNDECIDED = "undecided"


class OldShown(Enum):
    """How much of the old row goes out."""

    NOTHING = "nothing"
    KEY = "key"
    #: As much as the WAL carries.
    ALL = "all"


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What one subscription is told; there are a handful of them, compared by identity.

    Attributes:
        kind: The event type on the wire.
        old: How much of the old row is shown.
        left_view: Whether this is a synthetic DELETE: the row exists but is not seen any more.
    """

    kind: ChangeKind
    old: OldShown
    left_view: bool = False


_INSERTED = Told(ChangeKind.INSERT, OldShown.NOTHING)
_ENTERED = Told(ChangeKind.UPDATE, OldShown.KEY)
_UPDATED = Told(ChangeKind.UPDATE, OldShown.ALL)
_UPDATED_KEY = Told(ChangeKind.UPDATE, OldShown.KEY)
_DELETED = Told(ChangeKind.DELETE, OldShown.ALL)
_DELETED_KEY = Told(ChangeKind.DELETE, OldShown.KEY)
_LEFT = Told(ChangeKind.DELETE, OldShown.KEY, left_view=True)


def told_on_insert(new: Verdict) -> Told | None:
    """Decide about an INSERT."""
    return _INSERTED if new is Verdict.YES else None


def told_on_update(
    *, new: Verdict, old: Verdict, old_is_full: bool, row_security: bool
) -> Told | None:
    """Decide about an UPDATE.

    Args:
        new: Whether the new version is seen.
        old: Whether the old version is seen; without FULL this is not known and not asked for.
        old_is_full: Whether the WAL carried the whole old row.
        row_security: Whether policies apply to this role at all.
    """
    if not old_is_full:
        if new is not Verdict.YES:
            return None
        # A replica identity by another index carries more than the key, of a row that the policies
        # may have hidden.
        return _UPDATED_KEY if row_security else _UPDATED
    if new is Verdict.YES:
        return _UPDATED if old is Verdict.YES else _ENTERED
    return _LEFT if old is Verdict.YES else None


def told_on_delete(
    *,
    policy: Verdict,
    filters: Verdict,
    old_is_full: bool,
    row_security: bool,
    setting: DeleteVisibility,
) -> Told | None:
    """Decide about a DELETE.

    Args:
        policy: Whether the policies show the old row; asked for only with FULL.
        filters: Whether the filter passes on what is known of the old row.
        old_is_full: Whether the WAL carried the whole old row.
        row_security: Whether policies apply to this role at all.
        setting: ``delete_visibility``.
    """
    if filters is not Verdict.YES:
        return None
    if setting is DeleteVisibility.COMPATIBLE:
        return _DELETED_KEY if row_security or not old_is_full else _DELETED
    if old_is_full:
        return _DELETED if policy is Verdict.YES else None
    if setting is DeleteVisibility.STRICT:
        return None
    return _DELETED_KEY


def without_old_values(told: Told) -> Told:
    """Return the same with no more than the key of the old row.

    For transactions that changed rights themselves: their rights hold for all their rows
    (`visibility.md` §2), but an older version may have been hidden until then.
    """
    if told.old is not OldShown.ALL:
        return told
    return _UPDATED_KEY if told.kind is ChangeKind.UPDATE else _DELETED_KEY
