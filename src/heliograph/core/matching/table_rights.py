"""What one role may see of one table, as the catalog says at one moment (`visibility.md` §4)."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TableRights:
    """Privileges and policies of a role on a table.

    Attributes:
        role: Role name.
        role_oid: ``pg_roles.oid``; names may be reused, oids are not.
        may_use_schema: USAGE on the table's schema.
        selectable: Columns that the role may SELECT.
        bypasses: Whether the role is a superuser or has BYPASSRLS.
        policies_apply: What ``row_security_active(table)`` answers for the role.
        policy: The policies' combined expression, deparsed with an empty search_path; None when
            no policy applies (``policies_apply`` is false).
        policy_columns: Columns that the policies read; None when they may read the whole row.
        reads_tables: Whether judging may read other relations.
    """

    role: str
    role_oid: int
    may_use_schema: bool
    selectable: frozenset[str]
    bypasses: bool
    policies_apply: bool
    policy: str | None
    policy_columns: frozenset[str] | None
    reads_tables: bool

    @property
    def shows_all(self) -> bool:
        """Whether every row shows without asking."""
        return self.policy is None or self.policy == "true"

    @property
    def shows_none(self) -> bool:
        """Whether no row can show: no permissive policy applies to the role."""
        return self.policy == "false"


def combine_policies(permissive: Sequence[str], restrictive: Sequence[str]) -> str:
    """Join policy expressions as PostgreSQL does: any permissive one and every restrictive one.

    Source: https://www.postgresql.org/docs/current/sql-createpolicy.html
    """
    if not permissive or "false" in restrictive:
        return "false"
    allowed = "true" if "true" in permissive else _joined(" OR ", permissive)
    parts = [part for part in (allowed, *restrictive) if part != "true"]
    return _joined(" AND ", parts) if parts else "true"


def _joined(word: str, parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else word.join(f"({part})" for part in parts)
