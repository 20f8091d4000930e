"""Trials of policies: errors, slowness, and what could not be tried."""

from heliograph.cli.diagnosis.check import CheckName
from heliograph.cli.diagnosis.policies import judge_trials
from heliograph.limits import DOCTOR_POLICY_S_MAX
from heliograph.postgres.policy_trial import PolicyTrial


def judged(*, left_out=0, **facts):
    trial = PolicyTrial(table="public.t", label="anon", **facts)
    return {check.name: check for check in judge_trials([trial], left_out=left_out)}


def test_a_trial_without_trouble_is_well():
    found = judged(rows=100, shown=3, took_s=0.01)
    assert {check.status for check in found.values()} == {"ok"}


def test_rows_that_raise_fail_with_the_state_in_words():
    check = judged(rows=100, row_errors=("22012", "XX999"), row_error_count=7)
    detail = check[CheckName.POLICY_ERRORS].detail
    assert check[CheckName.POLICY_ERRORS].status == "fail"
    assert "7 of 100 rows: division by zero (SQLSTATE 22012), SQLSTATE XX999" in detail
    assert check[CheckName.POLICY_SPEED].status == "ok"


def test_policies_that_can_not_be_used_at_all_fail():
    check = judged(refusal="42501")[CheckName.POLICY_ERRORS]
    assert check.status == "fail"
    assert "joins are refused" in check.detail


def test_slow_policies_warn_and_those_that_time_out_fail():
    slow = judged(rows=100, took_s=DOCTOR_POLICY_S_MAX + 0.01)[CheckName.POLICY_SPEED]
    assert slow.status == "warn"
    assert "ms a row" in slow.detail
    assert judged(rows=100, timed_out=True)[CheckName.POLICY_SPEED].status == "fail"


def test_slow_policies_of_an_empty_table_divide_by_nothing():
    assert judged(rows=0, took_s=9.0)[CheckName.POLICY_SPEED].status == "warn"


def test_what_was_not_tried_is_no_fault_and_is_counted():
    assert judged(failure="no connection")[CheckName.POLICY_ERRORS].status == "skip"
    assert "3 more tables" in judged(rows=1, left_out=3)[CheckName.POLICY_ERRORS].detail
