"""The database as a whole: can it be reached and replicated from, was it prepared."""

from collections.abc import Collection, Sequence
from typing import Final

from heliograph.cli.diagnosis.check import Check, CheckName, fail, ok, warn
from heliograph.postgres.database_facts import DatabaseFacts
from heliograph.postgres.external_check import Finding, Severity, Topic
from heliograph.postgres.migration_files import Migration
from heliograph.postgres.migration_plan import MissingRight

#: What is said where nothing was found; topics about slots have checks of their own.
_GOOD: Final = {
    Topic.VERSION: "the version is one that is served",
    Topic.PRIMARY: "it is the primary",
    Topic.WAL_LEVEL: "wal_level is logical",
    Topic.SYNCHRONOUS_COMMIT: "commits are in the WAL at once",
    Topic.POOLER: "sessions keep their settings",
    Topic.REPLICATION_RIGHT: "the login may replicate",
    Topic.REPLICATION_CONNECTION: "replication connections work",
    Topic.SENDER_ROOM: "a WAL sender is free",
    Topic.SLOT_ROOM: "there is a slot, or room for one",
    Topic.SLOT_OWNER: "the slot's name is taken by nothing else",
    Topic.SLOT_WAL_LIMIT: "max_slot_wal_keep_size has a limit",
}


_OF_REPLICATION_LOGIN: Final = {Topic.REPLICATION_RIGHT, Topic.REPLICATION_CONNECTION}


def judge_reach(facts: DatabaseFacts) -> Check:
    """Say which database was reached."""
    major, minor = divmod(facts.version_number, 10_000)
    return ok(CheckName.DATABASE_REACH, f"PostgreSQL {major}.{minor}, database {facts.database}")


def judge_no_reach(reason: str) -> Check:
    """Say why no database was reached.

    Args:
        reason: The error's text: it names the variable and what libpq said.
    """
    if "password authentication failed" in reason or "does not exist" in reason:
        remedy = 'correct login, password or database in the URL; psql "$DATABASE_URL" tries it'
    elif "pg_hba.conf" in reason:
        remedy = "allow login and address in pg_hba.conf, or add ?sslmode=require to the URL"
    else:
        remedy = (
            'start PostgreSQL, or correct host and port in the URL; psql "$DATABASE_URL" tries it'
        )
    return fail(CheckName.DATABASE_REACH, reason, remedy)


def judge_findings(
    findings: Sequence[Finding], *, replication_failure: str | None = None
) -> list[Check]:
    """Turn the start-up findings of `external_check` into checks.

    That a slot is lost is left to `slots.py`.

    Args:
        findings: What was found.
        replication_failure: Why nothing could be found out about the login that replicates.
    """
    found = {finding.topic: finding for finding in findings}
    checks: list[Check] = []
    for topic, good in _GOOD.items():
        name = CheckName(topic.value)
        finding = found.get(topic)
        if replication_failure is not None and topic in _OF_REPLICATION_LOGIN:
            continue
        if finding is None:
            checks.append(ok(name, good))
        elif finding.severity is Severity.FATAL:
            checks.append(fail(name, finding.problem, finding.remedy))
        else:
            checks.append(warn(name, finding.problem, finding.remedy))
    if replication_failure is not None:
        remedy = "correct the URL: psql with it must work; unset it if DATABASE_URL is direct"
        checks.append(fail(CheckName.REPLICATION_CONNECTION, replication_failure, remedy))
    return checks


def judge_migrations(pending: Sequence[Migration], missing: Sequence[MissingRight]) -> list[Check]:
    """Judge what `heliograph migrate` would do, and what it can not do."""
    checks: list[Check] = []
    essential = [migration.label for migration in pending if migration.is_essential]
    others = [migration.label for migration in pending if not migration.is_essential]
    if essential:
        others += essential[1:]
        more = f", nor {len(others)} others" if others else ""
        text = f"the database is not up to date: {essential[0]} was not run{more}"
        checks.append(fail(CheckName.MIGRATIONS, text, "run: heliograph migrate"))
    elif others:
        text = f"not run: {', '.join(others)}; the server works without"
        checks.append(warn(CheckName.MIGRATIONS, text, "run: heliograph migrate"))
    for right in missing:
        state = fail if right.is_essential else warn
        text = f"missing: {right.what} ({right.reason}): {right.lost}"
        checks.append(state(CheckName.MIGRATIONS, text, right.remedy, subject=right.what))
    return checks or [ok(CheckName.MIGRATIONS, "the database is up to date")]


def judge_roles(wanted: Sequence[str], existing: Collection[str]) -> Check:
    """Judge whether the roles that tokens may name exist."""
    absent = [role for role in wanted if role not in existing]
    if not absent:
        return ok(CheckName.ROLES, f"{', '.join(wanted)} exist")
    return fail(
        CheckName.ROLES,
        f"tokens may name {', '.join(absent)}, and the database has no such role",
        "run: heliograph migrate (makes anon, authenticated, service_role), CREATE ROLE … NOLOGIN"
        " for your own, or take them out of HELIOGRAPH_ROLES",
    )


def judge_judge_login(user: str, problems: Sequence[str], *, is_ours: bool, exists: bool) -> Check:
    """Judge the login that asks the policies.

    Args:
        user: Its name.
        problems: What is wrong with it, or why it can not connect; empty if nothing is.
        is_ours: Whether the server makes it, and corrects it at each start.
        exists: Whether there is such a role.
    """
    name = CheckName.JUDGE_LOGIN
    if is_ours and not exists:
        text = f"there is no login {user} yet"
        return warn(name, text, "nothing, if no server was ever started: its first start makes it")
    if not problems:
        return ok(name, f"{user} can become the roles of tokens and nothing else")
    remedy = (
        "start the server again: it corrects its login where DATABASE_URL's may; servers of one"
        " database need the same HELIOGRAPH_JWT_SECRET"
        if is_ours
        else "correct the login of HELIOGRAPH_JUDGE_URL: docs/howto/external-database.md"
    )
    return fail(name, "; ".join(problems), remedy)
