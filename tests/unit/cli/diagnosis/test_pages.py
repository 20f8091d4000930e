"""Names and pages: each check has a page that shows it, each page shows checks that exist."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.doctor import assert_on_its_page
from fixtures.good_database import DATABASE, REPLICATION
from heliograph.cli.diagnosis.check import PAGES_FOLDER, Check, CheckName, CheckStatus
from heliograph.cli.diagnosis.clock import ClockReading, judge_clock
from heliograph.cli.diagnosis.database import judge_findings, judge_judge_login, judge_roles
from heliograph.cli.diagnosis.secrets_of import Secrets
from heliograph.cli.diagnosis.server import Listener, ServerFacts, judge_server
from heliograph.cli.diagnosis.slots import judge_slots
from heliograph.cli.diagnosis.tables import judge_publication
from heliograph.cli.doctor import as_document
from heliograph.postgres.database_facts import SlotFacts
from heliograph.postgres.external_check import judge_database
from heliograph.postgres.publication_check import (
    FindingLevel,
    PublicationFinding,
    PublicationTopic,
)
from heliograph.postgres.slot_usage import SlotUsage

ROOT = Path(__file__).parents[4]
PAGES = sorted(page for page in (ROOT / PAGES_FOLDER).glob("*.md") if page.name != "README.md")
_LINE = re.compile(r"^(?:ok  |warn|FAIL|skip)  ([a-z-]+): ", re.MULTILINE)

FOREIGN_SLOT = SlotFacts(plugin="wal2json", database="shop", is_active=True, wal_status="reserved")
SLOT = SlotUsage(
    name="heliograph",
    is_active=True,
    holder_pid=4711,
    holder_name="heliograph_reader",
    holder_address="10.0.0.7",
    wal_status="reserved",
    retained_bytes=2**31,
    safe_bytes=None,
)
PARTITIONED = (
    "it is partitioned, and the publication does not publish via the root: ALTER PUBLICATION …"
    " SET (publish_via_partition_root = true);"
)
URL = "http://127.0.0.1:8000"


def test_every_check_has_a_page_that_shows_it():
    absent = [
        name
        for name in CheckName
        if name not in _LINE.findall((ROOT / name.page).read_text(encoding="utf-8"))
    ]
    assert absent == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_shows_checks_that_exist_and_are_its_own(page):
    text = page.read_text(encoding="utf-8")
    names = _LINE.findall(text)
    assert names
    assert {CheckName(name).page for name in names} == {f"{PAGES_FOLDER}/{page.name}"}
    assert "**You see:**" in text
    assert "**Cure:**" in text
    assert f"({page.name})" in (page.parent / "README.md").read_text(encoding="utf-8")


def troubles_of_databases() -> Iterator[Check]:
    for changes, replication in (
        ({"version_number": 140_001}, {}),
        ({"is_in_recovery": True}, {}),
        ({"synchronous_commit": "off"}, {}),
        ({"slots_used": 10}, {}),
        ({"senders_used": 10}, {}),
        ({"slot": FOREIGN_SLOT}, {}),
        ({}, {"may_replicate": False}),
        ({}, {"failure": "no pg_hba.conf entry"}),
    ):
        findings = judge_database(
            replace(DATABASE, **changes),
            replace(REPLICATION, **replication),
            slot_name="heliograph",
            reader="auto",
        )
        yield from judge_findings(findings)


def troubles_of_tables() -> Iterator[Check]:
    for topic, table, reason in (
        (
            PublicationTopic.PARTITIONS,
            "public.parts",
            PARTITIONED,
        ),
        (
            PublicationTopic.COLUMNS,
            "public.orders",
            "its column list leaves out the key column id",
        ),
    ):
        finding = PublicationFinding(FindingLevel.TABLE_UNSERVABLE, table, 1, reason, topic)
        yield from judge_publication("supabase_realtime", [finding], [table])


def troubles_of_servers() -> Iterator[Check]:
    silent = ServerFacts(url=URL, listener=Listener.SILENT, failure="no answer within 3 s")
    yield from judge_server(silent, was_named=True)
    ours = ServerFacts(
        url=URL,
        listener=Listener.OURS,
        parts={"database": "the database did not answer"},
        metrics={
            "heliograph_connections": 80,
            "heliograph_channels": 10,
            'heliograph_closes_total{code="3008",reason="slow_consumer"}': 4,
            "heliograph_outbound_waiting_bytes": 0,
        },
    )
    yield from judge_server(ours, was_named=True)


def other_troubles() -> Iterator[Check]:
    old = replace(SLOT, name="old_replica", is_active=False, holder_pid=None)
    yield from judge_slots([SLOT, old], ours="heliograph", server_answers=False)
    yield judge_roles(["anon", "editor"], {"anon"})
    yield judge_judge_login("heliograph_judge", [], is_ours=True, exists=False)
    behind = ClockReading(100.0, 100.0, 38.0, 1.0)
    yield judge_clock(CheckName.CLOCK_SERVER, f"the server at {URL}", behind)
    yield judge_clock(CheckName.CLOCK_DATABASE, "PostgreSQL", ClockReading(10.0, 10.0, 13.5))


def test_what_no_test_can_break_here_is_shown_on_its_page_as_well():
    troubles = [
        check
        for gathered in (
            troubles_of_databases(),
            troubles_of_tables(),
            troubles_of_servers(),
            other_troubles(),
        )
        for check in gathered
        if check.status in {CheckStatus.WARN, CheckStatus.FAIL}
    ]
    document = as_document(troubles, Secrets(()))
    assert len(document["checks"]) >= 18
    for check in document["checks"]:
        assert_on_its_page(check)
