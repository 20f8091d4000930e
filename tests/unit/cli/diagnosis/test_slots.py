"""Slots: ours absent, read, unread, lost, far behind; others that hold much."""

from dataclasses import replace

from heliograph.cli.diagnosis.check import CheckName
from heliograph.cli.diagnosis.slots import judge_slots
from heliograph.limits import DOCTOR_SLOT_BYTES_MAX
from heliograph.postgres.slot_usage import SlotUsage

READ = SlotUsage(
    name="ours",
    is_active=True,
    holder_pid=4711,
    holder_name="heliograph reader",
    holder_address=None,
    wal_status="reserved",
    retained_bytes=1024,
    safe_bytes=None,
)
UNREAD = replace(READ, is_active=False, holder_pid=None, holder_name=None)


def judged(*slots, server_answers=False):
    checks = judge_slots(slots, ours="ours", server_answers=server_answers)
    return {check.name: check for check in checks}


def test_a_slot_that_our_server_reads_is_well():
    found = judged(READ, server_answers=True)
    assert {check.status for check in found.values()} == {"ok"}
    assert "process 4711" in found[CheckName.SLOT].detail


def test_an_absent_slot_is_a_fault_only_beside_a_running_server():
    assert judged()[CheckName.SLOT].status == "skip"
    assert judged(server_answers=True)[CheckName.SLOT].status == "fail"


def test_a_slot_that_another_process_reads_is_a_warning():
    check = judged(replace(READ, holder_address="10.0.0.7"))[CheckName.SLOT]
    assert check.status == "warn"
    assert "from 10.0.0.7" in check.detail


def test_a_slot_that_nobody_reads_fails_with_what_it_holds():
    check = judged(replace(UNREAD, retained_bytes=3 * 2**20))[CheckName.SLOT]
    assert check.status == "fail"
    assert "3.0 MiB" in check.detail
    assert "pg_drop_replication_slot('ours')" in check.remedy


def test_a_lost_slot_fails_once_and_one_about_to_be_lost_warns():
    lost = judged(replace(UNREAD, wal_status="lost"))
    assert lost[CheckName.SLOT].status == "skip"
    assert lost[CheckName.SLOT_LOST].status == "fail"
    assert judged(replace(READ, wal_status="unreserved"))[CheckName.SLOT_LOST].status == "warn"


def test_much_wal_is_a_warning_for_ours_and_for_others():
    heavy = replace(READ, retained_bytes=DOCTOR_SLOT_BYTES_MAX + 1)
    assert judged(heavy)[CheckName.SLOT_LAG].status == "warn"
    other = judged(READ, replace(heavy, name="old", is_active=False))[CheckName.OTHER_SLOTS]
    assert (other.status, other.subject) == ("warn", "old")
    assert "nobody reads it" in other.detail
    assert judged(READ, replace(READ, name="old"))[CheckName.OTHER_SLOTS].status == "ok"
