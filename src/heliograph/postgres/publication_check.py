"""What the server checks about its publication before it serves (S36, visibility.md §3 and §7)."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from heliograph.core.matching.table_description import is_listed
from heliograph.postgres.publishable_table import TableState, read_table

_PUBLICATION: Final = """
select p.puballtables as for_all_tables, p.pubinsert and p.pubupdate and p.pubdelete as all_changes,
       p.pubtruncate as truncates, p.pubviaroot as via_root
  from pg_catalog.pg_publication p where p.pubname = %s::text
"""

_TABLES: Final = """
select c.oid::bigint as oid, t.rowfilter is not null as has_row_filter,
       t.attnames::text[] as columns
  from pg_catalog.pg_publication_tables t
  join pg_catalog.pg_namespace n on n.nspname = t.schemaname
  join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.tablename
 where t.pubname = %s::text
 order by c.oid
"""


class FindingLevel(StrEnum):
    """What a finding means for the server."""

    #: The server must not start.
    REFUSE_START = "refuse_start"
    #: The table can not be subscribed to; the others can.
    TABLE_UNSERVABLE = "table_unservable"
    #: It works, but somebody will be surprised.
    WARNING = "warning"


class PublicationTopic(StrEnum):
    """What a finding is about; the words are stable, the doctor shows them."""

    PUBLICATION = "publication"
    KEY = "table-key"
    IDENTITY = "table-identity"
    PARTITIONS = "table-partitions"
    STORAGE = "table-storage"
    SCOPE = "table-scope"
    COLUMNS = "table-columns"
    ROW_FILTER = "table-row-filter"
    ROW_SECURITY = "table-row-security"


@dataclass(frozen=True, slots=True)
class PublicationFinding:
    """One thing that is wrong with a publication.

    Attributes:
        level: What it means.
        table: Qualified name, or None if it concerns the publication as a whole.
        table_oid: The same as an oid.
        reason: A sentence with what to do.
        topic: What it is about.
    """

    level: FindingLevel
    table: str | None
    table_oid: int | None
    reason: str
    topic: PublicationTopic = PublicationTopic.PUBLICATION


async def check_publication(
    connection: AsyncConnection[Any], name: str, *, allow_without_rls: Collection[str] = ()
) -> tuple[PublicationFinding, ...]:
    """Return what is wrong with a publication, worst first; empty if all is well. Reads only.

    Args:
        connection: Any connection to the database.
        name: Of the publication that clients are served from.
        allow_without_rls: The setting: tables that are served without row level security.
    """
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_PUBLICATION, (name,))
        publication = await cursor.fetchone()
        await cursor.execute(_TABLES, (name,))
        table_rows = await cursor.fetchall()
    if publication is None:
        reason = f"there is no publication {name!r}: run `heliograph migrate`"
        return (PublicationFinding(FindingLevel.REFUSE_START, None, None, reason),)
    findings = [*_publication_findings(name, publication)]
    if publication["for_all_tables"]:
        return tuple(findings)
    for row in table_rows:
        table = await read_table(connection, row["oid"])
        if table is not None:
            found = _table_findings(table, row, via_root=publication["via_root"])
            relation = table.relation
            is_served = all(f.level is FindingLevel.WARNING for f in found)
            if (
                is_served
                and not relation.has_row_security
                and not is_listed(relation.schema, relation.name, allow_without_rls)
            ):
                found += [_withheld(table)]
            findings.extend(found)
    order = list(FindingLevel)
    return tuple(sorted(findings, key=lambda finding: order.index(finding.level)))


def _publication_findings(name: str, row: dict[str, Any]) -> list[PublicationFinding]:
    findings: list[PublicationFinding] = []
    if row["for_all_tables"]:
        reason = (
            f"publication {name!r} is FOR ALL TABLES: it publishes auth.users and every other "
            "secret; make one with an explicit list of tables"
        )
        findings.append(PublicationFinding(FindingLevel.REFUSE_START, None, None, reason))
    if not row["all_changes"]:
        reason = (
            f"publication {name!r} leaves out inserts, updates or deletes: ALTER PUBLICATION "
            f"{name} SET (publish = 'insert, update, delete, truncate');"
        )
        findings.append(PublicationFinding(FindingLevel.WARNING, None, None, reason))
    if row["all_changes"] and not row["truncates"]:
        reason = (
            f"publication {name!r} leaves out TRUNCATE: subscribers keep rows that are gone; ALTER "
            f"PUBLICATION {name} SET (publish = 'insert, update, delete, truncate');"
        )
        findings.append(PublicationFinding(FindingLevel.WARNING, None, None, reason))
    return findings


def _withheld(table: TableState) -> PublicationFinding:
    reason = (
        "row level security is off: withheld from anon and authenticated unless it is listed in "
        "allow_without_rls"
    )
    relation = table.relation
    topic = PublicationTopic.ROW_SECURITY
    return PublicationFinding(FindingLevel.WARNING, relation.label, relation.oid, reason, topic)


def _table_findings(
    table: TableState, row: dict[str, Any], *, via_root: bool
) -> list[PublicationFinding]:
    relation = table.relation

    def finding(level: FindingLevel, topic: PublicationTopic, reason: str) -> PublicationFinding:
        return PublicationFinding(level, relation.label, relation.oid, reason, topic)

    if table.scope_problem is not None:
        reason = f"{relation.label} is published, but {table.scope_problem}: take it out"
        return [finding(FindingLevel.REFUSE_START, PublicationTopic.SCOPE, reason)]
    problems = {
        PublicationTopic.STORAGE: table.storage_problem,
        PublicationTopic.KEY: table.key_problem,
        PublicationTopic.IDENTITY: table.identity_problem,
        PublicationTopic.PARTITIONS: None
        if relation.kind != "p" or via_root
        else (
            "it is partitioned, and the publication does not publish via the root: ALTER "
            "PUBLICATION … SET (publish_via_partition_root = true);"
        ),
        PublicationTopic.COLUMNS: next(
            (
                f"its column list leaves out the key column {name}"
                for name in relation.primary_key
                if name not in row["columns"]
            ),
            None,
        ),
    }
    for topic, problem in problems.items():
        if problem is not None:
            return [finding(FindingLevel.TABLE_UNSERVABLE, topic, problem)]
    if row["has_row_filter"]:
        reason = "it has a row filter: an UPDATE across its border arrives as INSERT or DELETE"
        return [finding(FindingLevel.WARNING, PublicationTopic.ROW_FILTER, reason)]
    return []
