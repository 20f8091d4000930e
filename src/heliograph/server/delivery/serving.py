"""Which tables are served to which role, and why one is not (`visibility.md` §3, §7).

The reasons are for the server's log, the start-up report and the doctor; a client can not tell a
table that is withheld from it from one that does not exist.
"""

from dataclasses import dataclass
from typing import Final

from heliograph.core.channels.bearer import SERVICE_ROLE
from heliograph.core.matching.table_description import TableDescription, TableKind, is_listed
from heliograph.core.matching.table_rights import TableRights
from heliograph.core.matching.visibility import DeleteVisibility
from heliograph.core.replication.relation import ReplicaIdentity
from heliograph.server.delivery.tables import TableEntry

#: Why nobody bound by such policies is served: they read generated columns (before PostgreSQL 18),
#: columns that a column list leaves out, or system columns such as ``tableoid``.
POLICIES_READ_ABSENT: Final = "its policies read columns that the WAL does not carry"


@dataclass(frozen=True, slots=True)
class ServingRules:
    """Settings that decide what is served.

    Attributes:
        allow_without_rls: Names (``table`` in ``public``, or ``schema.table``) of tables without
            row level security that are streamed all the same; ``*`` means every one.
    """

    allow_without_rls: frozenset[str] = frozenset()

    def allows(self, table: TableDescription) -> bool:
        """Tell whether a table without row level security is streamed."""
        return is_listed(table.schema, table.name, self.allow_without_rls)


def why_withheld(entry: TableEntry, role: str, rules: ServingRules) -> str | None:
    """Return why a table is not served to a role; None when it is.

    Args:
        entry: The table with the role's rights.
        role: The subscriber's role.
        rules: The settings.
    """
    table, rights = entry.description, entry.rights[role]
    reason = why_not_streamable(table)
    if reason is not None:
        return reason
    return (
        _why_not_shown(entry, role, rules)
        or _why_not_told_apart(table, rights)
        or _undecidable_policy(table, rights)
    )


def what_may_be_told(entry: TableEntry, role: str, rules: ServingRules) -> str | None:
    """Return why a table can not be streamed to a role that may know that it exists.

    Who may read the table learns what is wrong with it; everybody else learns the same as for one
    that does not exist.
    """
    table, rights = entry.description, entry.rights[role]
    if not table.is_published or _why_not_shown(entry, role, rules) is not None:
        return None
    return (
        why_not_streamable(table)
        or _why_not_told_apart(table, rights)
        or _undecidable_policy(table, rights)
    )


def _why_not_told_apart(table: TableDescription, rights: TableRights) -> str | None:
    """Return why rows would come without their key: nobody could apply an UPDATE or a DELETE."""
    if rights.selectable.issuperset(table.primary_key):
        return None
    return "the role may not SELECT the primary key"


def _why_not_shown(entry: TableEntry, role: str, rules: ServingRules) -> str | None:
    table, rights = entry.description, entry.rights[role]
    if not rights.may_use_schema:
        return "the role has no USAGE on the schema"
    if not rights.selectable:
        return "the role may not SELECT any column"
    is_privileged = rights.bypasses or role == SERVICE_ROLE
    if not (table.row_security or is_privileged or rules.allows(table)):
        return "row level security is off and the table is not in allow_without_rls"
    return None


def note_on_deletes(table: TableDescription, visibility: DeleteVisibility) -> str | None:
    """Return what a subscriber should know about deletes that its policies can not judge.

    Without REPLICA IDENTITY FULL the WAL holds the key of a deleted row and nothing else.
    """
    name = f"{table.schema}.{table.name}"
    if table.replica_identity is ReplicaIdentity.FULL:
        return None
    why = "its replica identity is not FULL"
    match visibility:
        case DeleteVisibility.AUTO:
            return f"every subscriber is told the key of a deleted row of {name}: {why}"
        case DeleteVisibility.STRICT:
            return f"nobody is told of deleted rows of {name}: {why}"
        case DeleteVisibility.COMPATIBLE:
            # The operator has chosen Supabase's way for every table.
            return None


def why_not_streamable(table: TableDescription) -> str | None:
    """Return why nobody can subscribe to a table; None when the WAL carries what is needed."""
    reasons = {
        "it is not in the publication": not table.is_published,
        "only tables are streamed": table.kind
        not in {TableKind.TABLE, TableKind.PARTITIONED_TABLE},
        "it is unlogged": table.is_unlogged,
        "it is a partition published as itself: publish_via_partition_root is required": (
            table.is_partition or (table.kind is TableKind.PARTITIONED_TABLE and not table.via_root)
        ),
        "other tables inherit from it": table.is_inherited,
        "it has no primary key": not table.primary_key,
        "its replica identity is NOTHING": table.replica_identity is ReplicaIdentity.NOTHING,
        "its replica identity leaves out the primary key": not table.identity_has_key,
        "the publication's column list leaves out the primary key": any(
            (column := table.column(name)) is None or not table.is_streamed(column)
            for name in table.primary_key
        ),
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def _undecidable_policy(table: TableDescription, rights: TableRights) -> str | None:
    if rights.shows_all or rights.shows_none:
        return None
    absent = {column.name for column in table.columns if not table.is_streamed(column)}
    reads = rights.policy_columns
    unknown = absent if reads is None else absent & reads
    return POLICIES_READ_ABSENT if unknown else None
