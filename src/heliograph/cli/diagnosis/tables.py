"""The publication and its tables: what is in it, what the WAL carries, who may read."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from heliograph.cli.diagnosis.check import Check, CheckName, fail, ok, warn
from heliograph.core.matching.table_rights import TableRights
from heliograph.core.replication.relation import ReplicaIdentity
from heliograph.postgres.publication_check import (
    FindingLevel,
    PublicationFinding,
    PublicationTopic,
)

_REMEDIES: Final[Mapping[PublicationTopic, str]] = {
    PublicationTopic.PUBLICATION: (
        "run `heliograph migrate`, or let HELIOGRAPH_PUBLICATION name the one to serve from;"
        " `heliograph publish TABLE` adds tables"
    ),
    PublicationTopic.SCOPE: "run: ALTER PUBLICATION {publication} DROP TABLE {table};",
    PublicationTopic.STORAGE: (
        "run: ALTER PUBLICATION {publication} DROP TABLE {table}; and publish what the line names:"
        " heliograph publish …"
    ),
    PublicationTopic.KEY: "run: ALTER TABLE {table} ADD PRIMARY KEY (…);",
    PublicationTopic.IDENTITY: (
        "run: ALTER TABLE {table} REPLICA IDENTITY FULL; (DEFAULT, if FULL is what is wrong)"
    ),
    PublicationTopic.PARTITIONS: (
        "run: ALTER PUBLICATION {publication} SET (publish_via_partition_root = true);"
    ),
    PublicationTopic.COLUMNS: (
        "take the table out (ALTER PUBLICATION {publication} DROP TABLE {table};) and publish it"
        " again: heliograph publish {table}"
    ),
    PublicationTopic.ROW_FILTER: (
        "let policies decide who sees which rows, and publish the table without WHERE"
    ),
    PublicationTopic.ROW_SECURITY: (
        "run: ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; and write a policy; or, if everybody"
        " may see all of it, add {table} to HELIOGRAPH_ALLOW_WITHOUT_RLS"
    ),
}

_GOOD: Final = {
    PublicationTopic.SCOPE: "no table with credentials is published",
    PublicationTopic.STORAGE: "every published table is in the WAL",
    PublicationTopic.KEY: "every published table has a primary key",
    PublicationTopic.PARTITIONS: "partitions are published via the root, or there are none",
    PublicationTopic.COLUMNS: "no column list leaves out a key",
    PublicationTopic.ROW_FILTER: "no table has a row filter",
    PublicationTopic.ROW_SECURITY: "row level security is on, or its absence allowed",
}


@dataclass(frozen=True, slots=True)
class TableSight:
    """What one published table looks like to the roles of tokens.

    Attributes:
        table: Qualified name.
        identity: What the WAL carries of old rows; of a partitioned table, the least of its leaves.
        withheld: For each role that is not served the reason; others are served.
        rights: Rights of each role.
    """

    table: str
    identity: ReplicaIdentity
    withheld: Mapping[str, str]
    rights: Mapping[str, TableRights]


def judge_publication(
    name: str, findings: Sequence[PublicationFinding], tables: Sequence[str]
) -> list[Check]:
    """Judge a publication by what `check_publication` found.

    Args:
        name: Of the publication.
        findings: What was found.
        tables: Qualified names of its tables.
    """
    checks = [_of_finding(finding, name) for finding in findings]
    topics = {finding.topic for finding in findings}
    if PublicationTopic.PUBLICATION not in topics:
        if tables:
            shown = f"{name} has {len(tables)} tables: {_listed(tables)}"
            checks.append(ok(CheckName.PUBLICATION, shown))
        else:
            text = f"{name} has no table, so there is nothing to subscribe to"
            checks.append(warn(CheckName.PUBLICATION, text, "run: heliograph publish TABLE"))
    if tables:
        checks += [
            ok(CheckName(topic.value), text) for topic, text in _GOOD.items() if topic not in topics
        ]
    return checks


def judge_identities(sights: Sequence[TableSight], *, broken: Collection[str]) -> list[Check]:
    """Judge what the WAL carries of old rows.

    Args:
        sights: The tables.
        broken: Tables whose identity the publication's findings have complained of already.
    """
    name = CheckName.TABLE_IDENTITY
    lesser = [
        sight
        for sight in sights
        if sight.identity is not ReplicaIdentity.FULL and sight.table not in broken
    ]
    if not lesser and sights and not broken:
        return [ok(name, "every published table has REPLICA IDENTITY FULL")]
    return [
        warn(
            name,
            f"{sight.table} has REPLICA IDENTITY {sight.identity.name}: rows that leave a"
            " subscriber's view are not told, and deletes come with the key alone, to every"
            " subscriber",
            f"run: ALTER TABLE {sight.table} REPLICA IDENTITY FULL; (of a partitioned table: each"
            " partition)",
            subject=sight.table,
        )
        for sight in lesser
    ]


def judge_sights(sights: Sequence[TableSight], *, explained: Collection[str]) -> list[Check]:
    """Judge whether anybody but servers can see rows of each table.

    Args:
        sights: The tables with the roles that tokens may name, ``service_role`` left out.
        explained: Tables that are not served for a reason that is told elsewhere.
    """
    unread = [
        s for s in sights if s.table not in explained and s.withheld.keys() >= s.rights.keys()
    ]
    hidden = [s for s in sights if _is_hidden(s)]
    checks = [
        warn(
            CheckName.TABLE_GRANTS,
            f"no role of tokens is served {sight.table}: {_reasons(sight.withheld)}",
            f"run: GRANT SELECT ON {sight.table} TO authenticated; (and GRANT USAGE ON SCHEMA …"
            " where that is the reason)",
            subject=sight.table,
        )
        for sight in unread
    ]
    if sights and not unread:
        checks.append(ok(CheckName.TABLE_GRANTS, "some role may read each table that is served"))
    checks += [
        warn(
            CheckName.POLICIES_MISSING,
            f"row level security is on for {sight.table}, and no policy lets"
            f" {' or '.join(sight.rights)} see a row",
            f"run: CREATE POLICY … ON {sight.table} FOR SELECT TO authenticated USING (…);",
            subject=sight.table,
        )
        for sight in hidden
    ]
    if sights and not hidden:
        checks.append(ok(CheckName.POLICIES_MISSING, "each table has a policy for some role"))
    return checks


def _is_hidden(sight: TableSight) -> bool:
    return bool(sight.rights) and all(rights.shows_none for rights in sight.rights.values())


def _reasons(withheld: Mapping[str, str]) -> str:
    return "; ".join(f"{role}: {reason}" for role, reason in withheld.items())


def _of_finding(finding: PublicationFinding, publication: str) -> Check:
    table = finding.table or ""
    remedy = _REMEDIES[finding.topic].format(publication=publication, table=table)
    if finding.topic is PublicationTopic.PUBLICATION and finding.level is FindingLevel.WARNING:
        remedy = "run the statement that the line names"
    is_named_first = finding.reason.startswith(f"{table} ")
    text = f"{table}: {finding.reason}" if table and not is_named_first else finding.reason
    state = warn if finding.level is FindingLevel.WARNING else fail
    return state(CheckName(finding.topic.value), text, remedy, subject=table)


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
