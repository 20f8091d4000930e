"""Changes of rights in commit order, so that a judgement can tell whether one came in between.

A change that committed at *p* and was judged under a snapshot taken later is shown only if nothing
that the judgement depended on changed between *p* and the snapshot (`visibility.md` §1). What a
judgement depended on is known exactly: the relations that its transaction locked. What changed is
known exactly as well: the stream carries the rows of those relations, and the definitions
(policies, grants, functions) arrive as messages of the transaction that changed them.
"""

from collections import deque
from collections.abc import Iterable

from heliograph import limits
from heliograph.core.replication.lsn import ZERO_LSN, Lsn
from heliograph.core.replication.snapshot import Snapshot


class _Changes:
    """Transactions that changed one thing, oldest first."""

    __slots__ = ("entries", "forgotten_up_to")

    def __init__(self) -> None:
        self.entries: deque[tuple[Lsn, int]] = deque()
        self.forgotten_up_to: Lsn = ZERO_LSN

    def add(self, commit_lsn: Lsn, xid: int) -> None:
        if len(self.entries) == limits.RIGHTS_LOG_ENTRIES_MAX:
            self.forgotten_up_to = self.entries.popleft()[0]
        self.entries.append((commit_lsn, xid))

    def last(self) -> Lsn:
        return self.entries[-1][0] if self.entries else self.forgotten_up_to

    def between(self, after: Lsn, snapshot: Snapshot) -> bool:
        if after < self.forgotten_up_to:
            return True
        for commit_lsn, xid in reversed(self.entries):
            if commit_lsn <= after:
                return False
            if snapshot.sees(xid):
                return True
        return False

    def has(self, commit_lsn: Lsn) -> bool:
        if commit_lsn <= self.forgotten_up_to:
            return True
        for found, _ in reversed(self.entries):
            if found <= commit_lsn:
                return found == commit_lsn
        return False


class RightsLog:
    """Who changed what judgements depend on; belongs to the event loop."""

    __slots__ = ("_definitions", "_followed_since", "_named", "_named_forgotten", "_relations")

    def __init__(self) -> None:
        """Start empty."""
        self._definitions = _Changes()
        self._relations: dict[int, _Changes] = {}
        self._followed_since: dict[int, Lsn] = {}
        #: Where definitions of a relation changed last, whoever used it by then.
        self._named: dict[int, Lsn] = {}
        self._named_forgotten: Lsn = ZERO_LSN

    def restart(self) -> None:
        """Forget all positions, because another history begins; what is followed stays so."""
        self._definitions = _Changes()
        self._relations.clear()
        self._named.clear()
        self._named_forgotten = ZERO_LSN
        self._followed_since = dict.fromkeys(self._followed_since, ZERO_LSN)

    def follow(self, relation_oid: int, since: Lsn) -> None:
        """Record that every change of the relation that commits after ``since`` will be seen."""
        self._followed_since.setdefault(relation_oid, since)

    def unfollow(self, relation_oid: int) -> None:
        """Record that changes of the relation are not seen any more."""
        self._followed_since.pop(relation_oid, None)
        self._relations.pop(relation_oid, None)

    def followed(self) -> set[int]:
        """Return the relations whose changes are seen."""
        return set(self._followed_since)

    def follows(self, relation_oid: int) -> bool:
        """Tell whether the relation's changes are seen."""
        return relation_oid in self._followed_since

    def definitions_changed(self, commit_lsn: Lsn, xid: int) -> None:
        """Record a transaction that changed policies, grants, functions or roles."""
        self._definitions.add(commit_lsn, xid)

    def relations_changed(self, relation_oids: Iterable[int], commit_lsn: Lsn) -> None:
        """Record a transaction that changed definitions of some relations, known or not."""
        for oid in relation_oids:
            self._named[oid] = commit_lsn
        if len(self._named) > limits.RELATIONS_MAX:
            self._named.clear()
            self._named_forgotten = commit_lsn

    def changed_after(self, after: Lsn, tables: Iterable[int], reads: Iterable[int]) -> bool:
        """Tell whether anything received so far may have changed rights behind a position.

        Args:
            after: The position.
            tables: Tables subscribed to.
            reads: Followed relations that judging their rows reads.
        """
        found = [self._definitions.last(), self._named_forgotten]
        found += [self._named.get(oid, ZERO_LSN) for oid in (*tables, *reads)]
        for oid in reads:
            changes = self._relations.get(oid)
            if changes is not None:
                found.append(changes.last())
            found.append(self._followed_since.get(oid, ZERO_LSN))
        return max(found) > after

    def last_definition(self, snapshot: Snapshot) -> Lsn:
        """Return where the last change of a definition committed that a snapshot sees.

        The stream must have passed the insert position taken with the snapshot.
        """
        for commit_lsn, xid in reversed(self._definitions.entries):
            if snapshot.sees(xid):
                return commit_lsn
        return self._definitions.forgotten_up_to

    def rows_changed(self, relation_oids: Iterable[int], commit_lsn: Lsn, xid: int) -> None:
        """Record a transaction that changed rows; relations nobody follows are passed over."""
        for oid in relation_oids:
            if oid in self._followed_since:
                changes = self._relations.get(oid)
                if changes is None:
                    changes = self._relations[oid] = _Changes()
                changes.add(commit_lsn, xid)

    def changed_between(
        self,
        after: Lsn,
        snapshot: Snapshot,
        relations: Iterable[int],
        *,
        closing: Snapshot | None = None,
    ) -> bool:
        """Tell whether rights may have changed between a commit and a snapshot.

        The stream must have passed the insert position taken with the later snapshot.

        Args:
            after: Commit position of the judged change.
            snapshot: What judged it: rows were read as it shows them.
            relations: Followed relations that were read while judging.
            closing: Taken behind the judgement: definitions were used at the latest as it shows
                them. None: no later than ``snapshot``.
        """
        if self._definitions.between(after, closing or snapshot):
            return True
        for oid in relations:
            if self._followed_since.get(oid, after) > after:
                return True
            changes = self._relations.get(oid)
            if changes is not None and changes.between(after, snapshot):
                return True
        return False

    def changed_by(self, commit_lsn: Lsn, relations: Iterable[int]) -> bool:
        """Tell whether a transaction may itself have changed rights.

        Args:
            commit_lsn: Its commit position.
            relations: Followed relations that were read while judging it.
        """
        if self._definitions.has(commit_lsn):
            return True
        read = (self._relations.get(oid) for oid in relations)
        return any(changes is not None and changes.has(commit_lsn) for changes in read)
