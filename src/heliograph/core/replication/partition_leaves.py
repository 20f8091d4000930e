"""Partitions that send less of their old rows than the table that their rows are told as.

With ``publish_via_partition_root`` every row is told as one of the root, in the root's form: an old
row is tagged as whole if the *root* has REPLICA IDENTITY FULL. What is in it, the identity of the
*partition* decides, and a new partition has DEFAULT whatever the root has: then the old row holds
NULL for everything but the key, and an UPDATE that keeps the key has none at all.

The stream says so nevertheless: before the first row of a partition it describes the root, then the
partition, and the row follows at once. No other row follows the description of another table.
Source: measured with PostgreSQL 15 to 18; ``maybe_send_schema`` in pgoutput.c.
"""

from dataclasses import replace

from heliograph.core.replication.relation import Relation, ReplicaIdentity

#: Partitions of these identities never send less: NOTHING sends no old rows, but such a partition
#: takes no UPDATE and no DELETE either.
_NEVER_LESS = frozenset({ReplicaIdentity.FULL, ReplicaIdentity.NOTHING})


class PartitionLeaves:
    """Which partitions send less, and what that leaves of their roots' identity."""

    __slots__ = ("_roots",)

    def __init__(self) -> None:
        """Know no partition."""
        self._roots: dict[int, dict[int, frozenset[str]]] = {}

    def note(self, root: Relation, leaf: Relation) -> None:
        """Learn that rows of ``leaf`` are told as rows of ``root``."""
        lesser = self._roots.setdefault(root.oid, {})
        lesser.pop(leaf.oid, None)
        sent = _key_names(leaf)
        is_less = root.replica_identity is ReplicaIdentity.FULL or sent != _key_names(root)
        if is_less and leaf.replica_identity not in _NEVER_LESS:
            lesser[leaf.oid] = sent
        if not lesser:
            del self._roots[root.oid]

    def narrowed(self, root: Relation) -> Relation:
        """Return a description that promises what every partition keeps.

        Returns:
            The same if no partition sends less; otherwise one that `is_partial`. With FULL only the
            key that the partitions send is marked. If they send several keys, or the root has
            another identity than FULL, nothing can be relied on: then the identity is NOTHING.
        """
        lesser = self._roots.get(root.oid)
        if lesser is None:
            return root
        (sent, *others) = set(lesser.values())
        if others or root.replica_identity is not ReplicaIdentity.FULL:
            return _partial(root, frozenset(), ReplicaIdentity.NOTHING)
        if sent.issuperset(column.name for column in root.columns):
            return root
        return _partial(root, sent, ReplicaIdentity.FULL)

    def forget(self) -> None:
        """Forget every partition: on a new connection each is described before its next row."""
        self._roots.clear()

    def __len__(self) -> int:
        """Return how many partitions are known to send less."""
        return sum(map(len, self._roots.values()))


def _key_names(relation: Relation) -> frozenset[str]:
    return frozenset(column.name for column in relation.columns if column.is_key)


def _partial(root: Relation, sent: frozenset[str], identity: ReplicaIdentity) -> Relation:
    columns = tuple(replace(column, is_key=column.name in sent) for column in root.columns)
    return replace(root, replica_identity=identity, columns=columns, is_partial=True)
