"""What happened: numbers of commits, rights at each of them, causes of ``resync``, and counts."""

import bisect
import contextlib
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from soak.schema import HIDDEN_ORGS, OPEN_ORGS


class LawBrokenError(Exception):
    """Something was lost, doubled, out of order, shown to the wrong one or not explained."""

    def __init__(self, kind, detail):
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


#: The kinds of broken laws; the summary names each, also those that were never broken.
LAWS = ("lost", "duplicated", "reordered", "leaked", "silent_gap", "unexplained", "stuck", "ended")


@dataclass
class Cause:
    """Something that was done and explains a ``resync``.

    Attributes:
        kind: One of the names in `EXPLAINED_BY`.
        number: The highest commit that was known when everybody had followed, so far.
        is_done: Whether it was done.
        ended_s: When everybody had followed; None before that.
    """

    kind: str
    number: int
    is_done: bool = False
    ended_s: float | None = None


RIGHTS = {"membership", "policy"}
SLOT = {"slot_dropped", "slot_invalidated"}
DATABASE = {"postgres_killed", "postgres_restarted", "judges_ended", "server_stopped"}
DEFINITIONS = {"policy", "truncated", "publication"}

#: Which causes explain each reason. A reason that is not here is never explained.
EXPLAINED_BY = {
    # A table that leaves the publication and comes back is read again, its policies, too; with
    # another history everything is.
    "rights_changed": RIGHTS | {"publication"} | SLOT | {"slot_moved"},
    "truncated": {"truncated"},
    "publication_changed": {"publication"},
    "table_changed": {"publication"},
    "schema_changed": {"publication"},
    "table_gone": {"publication"},
    "subscription_interrupted": {"publication"},
    "slot_recreated": SLOT,
    "slot_moved": {"slot_moved"},
    "epoch_changed": SLOT | {"slot_moved"},
    "judgement_unavailable": DATABASE,
    "judgement_timeout": DATABASE | DEFINITIONS,
    "fell_behind": {"read_slowly"},
    "position_expired": {"read_slowly"},
}

#: Commits by which it may be: what follows from a change of rights is found out in steps.
SLACK_COMMITS = 50

#: Seconds by which a cause may be older than the last position of the client that is told.
SLACK_S = 5.0


#: Seconds after a start of the server within which it learns what policies read.
LEARNING_S = 20.0


@dataclass
class Ledger:
    """The whole run's memory; one for all clients.

    Attributes:
        is_plain: Whether the server is a plain owner: without event triggers, everybody is bound by
            policies.
        committed: The highest number whose commit was answered.
        rows: Row changes committed.
        counts: Everything that is counted, by name.
        broken: What was wrong, as text, by client.
        truncations: Numbers of the commits that emptied a table.
        recoveries_s: Seconds from the end of a fault until every prompt client had followed.
    """

    ring_transactions: int
    is_plain: bool = False
    committed: int = 0
    rows: int = 0
    counts: Counter = field(default_factory=Counter)
    broken: list = field(default_factory=list)
    recoveries_s: dict = field(default_factory=lambda: defaultdict(list))
    causes: list = field(default_factory=list)
    truncations: set = field(default_factory=set)
    _rights: list = field(default_factory=lambda: [(0, frozenset(), "members")])

    # --- rights -----------------------------------------------------------------------------------

    def rights_from(self, number, members, policy):
        """Note what holds from a commit on; call it before the commit."""
        while self._rights and self._rights[-1][0] >= number:
            self._rights.pop()
        self._rights.append((number, frozenset(members), policy))

    def forget_rights_from(self, number):
        """Take back what was noted of a commit that did not happen."""
        if self._rights[-1][0] == number:
            self._rights.pop()

    def rights_at(self, number):
        """Return members and policy at a commit."""
        place = bisect.bisect_right(self._rights, number, key=lambda entry: entry[0])
        return self._rights[place - 1][1:]

    def changes_rights(self, number):
        """Tell whether a commit changed rights."""
        place = bisect.bisect_right(self._rights, number, key=lambda entry: entry[0])
        return self._rights[place - 1][0] == number

    def may_see(self, user, table, row, number):
        """Tell whether the policies show a row to a user at a commit."""
        if user is None or table == "things":
            return True
        if table == "tasks":
            return row["owner"] == user
        members, policy = self.rights_at(number)
        org = row["org"]
        is_open = policy == "members_or_open" and org in OPEN_ORGS
        return org not in HIDDEN_ORGS and (is_open or (user, org) in members)

    # --- causes -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def cause(self, kind):
        """Note that something is done that explains a ``resync``."""
        cause = Cause(kind, self.committed)
        self.causes.append(cause)
        self.counts[f"done {kind}"] += 1
        try:
            yield
        finally:
            cause.is_done = True

    def everybody_followed(self):
        """Note that the clients have met all that was done: from now on it explains little."""
        for cause in self.causes:
            if cause.is_done and cause.ended_s is None:
                cause.ended_s = time.monotonic()
                cause.number = self.committed

    def is_explained(self, reason, *, seen, heard_s, user):
        """Tell whether something was done that explains a ``resync``.

        Args:
            reason: As told.
            seen: The last number that the client had been told.
            heard_s: When it was told its last position.
            user: Its user.
        """
        if reason == "position_expired" and self.committed - seen >= 0.9 * self.ring_transactions:
            return True
        kinds = EXPLAINED_BY.get(reason, ())
        if self._is_caused_by(kinds, seen, heard_s - SLACK_S):
            return True
        if reason != "rights_changed" or (user is None and not self.is_plain):
            return False
        # What judging a table reads is learned by judging, for all tables that are judged together,
        # and forgotten when the server ends; it is part of what a position says of rights.
        has_begun = self._is_caused_by({"server_started"}, seen, heard_s - LEARNING_S)
        self.counts["rights_changed explained only by a start of the server"] += has_begun
        return has_begun

    def _is_caused_by(self, kinds, seen, since_s):
        return any(
            cause.number + SLACK_COMMITS >= seen
            or cause.ended_s is None
            or cause.ended_s >= since_s
            for cause in self.causes
            if cause.kind in kinds
        )

    # --- what was wrong ---------------------------------------------------------------------------

    def break_law(self, client, error):
        """Note that a law was broken."""
        self.counts[f"law {error.kind}"] += 1
        self.broken.append(f"{client}: {error}")
