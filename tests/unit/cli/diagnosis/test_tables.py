"""Publication and tables: findings by topic, old rows, who may read."""

from dataclasses import replace

import pytest

from heliograph.cli.diagnosis.check import CheckName
from heliograph.cli.diagnosis.tables import (
    TableSight,
    judge_identities,
    judge_publication,
    judge_sights,
)
from heliograph.core.matching.table_rights import TableRights
from heliograph.core.replication.relation import ReplicaIdentity
from heliograph.postgres.publication_check import (
    FindingLevel,
    PublicationFinding,
    PublicationTopic,
)

RIGHTS = TableRights(
    role="authenticated",
    role_oid=1,
    may_use_schema=True,
    selectable=frozenset({"id"}),
    bypasses=False,
    policies_apply=True,
    policy="(owner = auth.uid())",
    policy_columns=frozenset({"owner"}),
    reads_tables=False,
)
SIGHT = TableSight("public.t", ReplicaIdentity.FULL, {}, {"anon": RIGHTS, "authenticated": RIGHTS})


def finding(topic, level=FindingLevel.TABLE_UNSERVABLE, table="public.t"):
    return PublicationFinding(level, table, 1, "it is so", topic)


def statuses(checks):
    return {(check.name, check.status) for check in checks}


def test_a_good_publication_has_a_line_for_every_topic():
    checks = judge_publication("p", [], ["public.t"])
    assert {check.status for check in checks} == {"ok"}
    wanted = {topic.value for topic in PublicationTopic} - {"table-identity"}
    assert {check.name.value for check in checks} == wanted


@pytest.mark.parametrize("topic", list(PublicationTopic))
def test_each_topic_has_its_check_and_a_remedy_with_names_filled_in(topic):
    checks = judge_publication("p", [finding(topic)], ["public.t"])
    (check,) = [check for check in checks if check.problem is not None]
    assert (check.name.value, check.status) == (topic.value, "fail")
    assert check.remedy
    assert "{" not in check.remedy
    warned = judge_publication("p", [finding(topic, FindingLevel.WARNING)], ["public.t"])
    assert (CheckName(topic.value), "warn") in statuses(warned)


def test_a_line_begins_with_its_table_also_if_a_statement_names_it_later():
    told = replace(finding(PublicationTopic.KEY), reason="no key; ALTER TABLE public.t ADD …")
    (check,) = [c for c in judge_publication("p", [told], ["public.t"]) if c.problem is not None]
    assert check.detail == "public.t: no key; ALTER TABLE public.t ADD …"


def test_an_empty_publication_is_a_warning():
    assert statuses(judge_publication("p", [], [])) == {(CheckName.PUBLICATION, "warn")}


def test_a_lesser_identity_is_a_warning_unless_it_was_told_already():
    lesser = replace(SIGHT, identity=ReplicaIdentity.DEFAULT)
    assert judge_identities([lesser], broken=())[0].status == "warn"
    assert judge_identities([lesser], broken={"public.t"}) == []
    assert judge_identities([SIGHT], broken=())[0].status == "ok"


def test_a_table_that_some_role_sees_is_well():
    half = replace(SIGHT, withheld={"anon": "the role may not SELECT any column"})
    assert statuses(judge_sights([SIGHT, half], explained=())) == {
        (CheckName.TABLE_GRANTS, "ok"),
        (CheckName.POLICIES_MISSING, "ok"),
    }


def test_a_table_that_nobody_may_read_is_told_unless_explained():
    withheld = replace(SIGHT, withheld=dict.fromkeys(SIGHT.rights, "no USAGE on the schema"))
    told = judge_sights([withheld], explained=())
    assert (CheckName.TABLE_GRANTS, "warn") in statuses(told)
    assert "anon: no USAGE" in told[0].detail
    assert (CheckName.TABLE_GRANTS, "ok") in statuses(
        judge_sights([withheld], explained={"public.t"})
    )


def test_a_table_without_a_policy_is_told():
    none = replace(RIGHTS, policy="false")
    hidden = replace(SIGHT, rights={"anon": none, "authenticated": none})
    assert (CheckName.POLICIES_MISSING, "warn") in statuses(judge_sights([hidden], explained=()))
    shown = replace(SIGHT, rights={"anon": none, "authenticated": RIGHTS})
    assert (CheckName.POLICIES_MISSING, "ok") in statuses(judge_sights([shown], explained=()))
