"""What is remembered of the stream to tell which table is new to it."""

import pytest

from fixtures.transactions import empty_transaction
from heliograph import limits
from heliograph.core.replication.relation import Relation, ReplicaIdentity
from heliograph.postgres.catalog import Catalog
from heliograph.server.delivery.late_writers import LateWriters
from heliograph.server.delivery.preparation import Preparation, PreparationParts
from heliograph.server.delivery.progress import StreamProgress
from heliograph.server.delivery.rights_log import RightsLog
from heliograph.server.delivery.rights_watch import RightsWatch
from heliograph.server.delivery.serving import ServingRules
from heliograph.server.delivery.table_registry import TableRegistry

pytestmark = pytest.mark.asyncio


class Wildcards:
    def __init__(self):
        self.expanded = []

    def has_wildcards(self):
        return True

    async def expand(self, table_oid):
        self.expanded.append(table_oid)


async def nothing(*_arguments):
    raise AssertionError("no table is in use: nothing is read")


def preparation(wildcards):
    rights = RightsWatch(nothing, reads_definitions=False)
    parts = PreparationParts(
        admin=None,
        registry=TableRegistry(None, Catalog("supabase_realtime"), rights, LateWriters(None)),
        dispatcher=None,
        rights_log=RightsLog(),
        rights=rights,
        progress=StreamProgress(request=lambda: None, nudge=nothing),
        dependencies=None,
        rules=ServingRules(),
        late_writers=LateWriters(None),
    )
    made = Preparation(parts)
    made.wildcards = wildcards
    return made


def describing(oid):
    relation = Relation(oid, "public", f"t{oid}", ReplicaIdentity.FULL, ())
    return empty_transaction(10, changed_relations=(relation,))


async def test_the_table_seen_longest_ago_gives_way_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(limits, "RELATIONS_MAX", 2)
    wildcards = Wildcards()
    made = preparation(wildcards)
    for oid in (1, 2, 2, 3):
        await made.prepare(describing(oid), None, lambda: True)
    assert wildcards.expanded == [1, 2, 3]
    assert [made.is_needed(describing(oid), None) for oid in (1, 2, 3)] == [True, False, False]
