"""Judging a database: every fact that matters leads to a finding that says what to run."""

import dataclasses

import pytest

from fixtures.good_database import DATABASE, REPLICATION
from heliograph.errors import ConfigurationError
from heliograph.postgres.database_facts import SlotFacts
from heliograph.postgres.external_check import (
    Finding,
    Severity,
    judge_database,
    require_usable,
)

OUR_SLOT = SlotFacts(plugin="pgoutput", database="shop", is_active=True, wal_status="reserved")


def judge(reader="auto", replication=None, **changes) -> list[Finding]:
    return judge_database(
        dataclasses.replace(DATABASE, **changes),
        dataclasses.replace(REPLICATION, **(replication or {})),
        slot_name="heliograph",
        reader=reader,
    )


def test_a_good_database_has_no_findings():
    assert judge() == []
    assert judge(slot=OUR_SLOT) == []
    assert judge(system_identifier=None) == []


@pytest.mark.parametrize(
    ("changes", "problem", "remedy"),
    [
        ({"version_number": 140_011}, "15 or newer is needed; this is 14", "upgrade"),
        ({"wal_level": "replica"}, "it is replica", "ALTER SYSTEM SET wal_level = 'logical'"),
        ({"is_in_recovery": True}, "standby", "primary"),
        ({"has_session": False}, "pooler in transaction mode", "5432"),
        ({"slots_used": 10}, "no free replication slot: 10 of 10", "max_replication_slots = 15"),
        (
            {"slot": dataclasses.replace(OUR_SLOT, plugin="wal2json")},
            "plugin wal2json",
            "HELIOGRAPH_SLOT",
        ),
        (
            {"slot": dataclasses.replace(OUR_SLOT, database="other")},
            "database other",
            "HELIOGRAPH_SLOT",
        ),
        (
            {"replication": {"may_replicate": False, "login": 'a"b'}},
            "may not replicate",
            'ALTER ROLE "a""b" REPLICATION',
        ),
        ({"replication": {"database": "else"}}, "another database", "same database"),
        ({"replication": {"system_identifier": "2"}}, "another server", "same database"),
    ],
)
def test_what_forbids_to_go_on_is_fatal_and_names_the_remedy(changes, problem, remedy):
    (finding,) = judge(**changes)
    assert finding.severity is Severity.FATAL
    assert problem in finding.problem
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("changes", "problem", "remedy"),
    [
        ({"slot_wal_keep_mb": -1}, "max_slot_wal_keep_size", "10GB"),
        ({"synchronous_commit": "off"}, "synchronous_commit", "wal_writer_delay"),
        ({"slot": dataclasses.replace(OUR_SLOT, wal_status="lost")}, "is lost", "raise"),
    ],
)
def test_what_can_be_lived_with_is_a_warning(changes, problem, remedy):
    (finding,) = judge(**changes)
    assert finding.severity is Severity.WARNING
    assert problem in finding.problem
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("reader", "severity"), [("streaming", Severity.FATAL), ("auto", Severity.WARNING)]
)
def test_what_only_streaming_needs_is_fatal_for_streaming_only(reader, severity):
    refused = {"failure": "FATAL: no", "database": None, "system_identifier": None}
    (finding,) = judge(reader, refused)
    assert finding.severity is severity
    assert "HELIOGRAPH_REPLICATION_URL" in finding.remedy
    (finding,) = judge(reader, senders_used=10)
    assert finding.severity is severity
    assert "max_wal_senders = 15" in finding.remedy


def test_without_a_sender_no_other_reason_of_the_refusal_is_looked_for():
    refused = {"failure": "too many senders", "database": None, "system_identifier": None}
    (finding,) = judge("auto", refused, senders_used=10)
    assert "until the next start the slot is polled" in finding.problem
    assert "max_wal_senders = 15" in finding.remedy


def test_polling_needs_no_sender():
    assert judge("polling", senders_used=10) == []


def test_our_own_slot_and_its_reader_take_no_room():
    assert judge("streaming", slot=OUR_SLOT, slots_used=10, senders_used=10) == []


def test_fatal_findings_come_first_and_are_raised_together():
    findings = judge(slot_wal_keep_mb=-1, wal_level="minimal", has_session=False)
    assert [finding.severity for finding in findings] == ["fatal", "fatal", "warning"]
    with pytest.raises(ConfigurationError) as raised:
        require_usable(findings)
    assert "wal_level" in str(raised.value)
    assert "pooler" in str(raised.value)
    assert "max_slot_wal_keep_size" not in str(raised.value)


def test_warnings_alone_do_not_forbid_to_go_on():
    require_usable(judge(slot_wal_keep_mb=-1))
