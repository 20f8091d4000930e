"""The database as a whole: findings, migrations, roles, the judging login."""

import pytest

from heliograph.cli.diagnosis.check import CheckName
from heliograph.cli.diagnosis.database import (
    judge_findings,
    judge_judge_login,
    judge_migrations,
    judge_no_reach,
    judge_roles,
)
from heliograph.postgres.external_check import Finding, Severity, Topic
from heliograph.postgres.migration_files import MigrationMode, migrations_of
from heliograph.postgres.migration_plan import MissingRight

MIGRATIONS = migrations_of(MigrationMode.FRESH)


def statuses(checks):
    return {check.name: check.status for check in checks}


def test_every_topic_that_is_not_told_elsewhere_has_a_line():
    found = statuses(judge_findings([]))
    assert set(found.values()) == {"ok"}
    assert {name.value for name in found} == {topic.value for topic in Topic} - {"slot-lost"}


def test_findings_keep_their_severity_and_remedy():
    checks = judge_findings(
        [
            Finding(topic=topic, severity=severity, problem="found", remedy="run this")
            for topic, severity in (
                (Topic.WAL_LEVEL, Severity.FATAL),
                (Topic.SLOT_WAL_LIMIT, Severity.WARNING),
                (Topic.SLOT_LOST, Severity.WARNING),
            )
        ]
    )
    found = statuses(checks)
    assert found[CheckName.WAL_LEVEL] == "fail"
    assert found[CheckName.SLOT_WAL_LIMIT] == "warn"
    assert CheckName.SLOT_LOST not in found
    assert {check.remedy for check in checks if check.problem} == {"run this"}


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ('FATAL: password authentication failed for user "x"', "correct login"),
        ('FATAL: database "x" does not exist', "correct login"),
        ("FATAL: no pg_hba.conf entry for host", "pg_hba.conf"),
        ("Connection refused", "start PostgreSQL"),
    ],
)
def test_what_to_do_depends_on_why_it_can_not_be_reached(reason, remedy):
    assert remedy in judge_no_reach(reason).remedy


def test_migrations_that_must_be_run_fail_and_others_warn():
    essential = [migration for migration in MIGRATIONS if migration.is_essential]
    others = [migration for migration in MIGRATIONS if not migration.is_essential]
    assert [check.status for check in judge_migrations([], [])] == ["ok"]
    (check,) = judge_migrations([*others, *essential], [])
    assert check.status == "fail"
    assert f"{essential[0].label} was not run, nor {len(MIGRATIONS) - 1} others" in check.detail
    assert judge_migrations(others, [])[0].status == "warn"


@pytest.mark.parametrize(("is_essential", "status"), [(True, "fail"), (False, "warn")])
def test_a_missing_right_is_told(is_essential, status):
    right = MissingRight("roles", "no CREATEROLE", "nobody can join", "ask", is_essential)
    (check,) = judge_migrations([], [right])
    assert (check.status, check.subject, check.remedy) == (status, "roles", "ask")


def test_roles_and_the_judging_login():
    assert judge_roles(["anon"], {"anon", "other"}).status == "ok"
    assert "editor" in judge_roles(["anon", "editor"], {"anon"}).detail
    assert judge_judge_login("j", [], is_ours=True, exists=False).status == "warn"
    assert judge_judge_login("j", [], is_ours=True, exists=True).status == "ok"
    ours = judge_judge_login("j", ["it is a superuser"], is_ours=True, exists=True)
    assert ours.status == "fail"
    given = judge_judge_login("j", ["it is a superuser"], is_ours=False, exists=True)
    assert "HELIOGRAPH_JUDGE_URL" in given.remedy
