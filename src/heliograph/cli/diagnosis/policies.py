"""What the policies do when they are tried on real rows: raise, or take long."""

from collections.abc import Sequence
from typing import Final

from heliograph.cli.diagnosis.check import Check, CheckName, fail, ok, skip, warn
from heliograph.limits import DOCTOR_POLICY_S_MAX
from heliograph.postgres.policy_trial import PolicyTrial

#: SQLSTATEs that policies raise most, in words.
_STATES: Final = {
    "22012": "division by zero",
    "22023": "invalid parameter value",
    "22P02": "a text that is not of the type it is cast to",
    "42501": "a privilege is missing",
    "42703": "a column that is not there",
    "42883": "a function that is not there",
    "42P01": "a table that is not there",
    "42P17": "policies that read each other without end",
    "P0001": "RAISE EXCEPTION",
    "0A000": "a feature that is not supported",
    "21000": "a sub-select that returned more than one row",
}


def judge_trials(trials: Sequence[PolicyTrial], *, left_out: int) -> list[Check]:
    """Judge how the policies did.

    Args:
        trials: One for each table and identity that has policies to ask.
        left_out: Tables that were not tried, because there are too many.
    """
    checks = [check for trial in trials for check in _of_trial(trial)]
    names = {check.name for check in checks}
    tried = f"{len(trials)} trials on {sum(trial.rows for trial in trials)} rows"
    if left_out:
        tried += f" ({left_out} more tables were not tried)"
    for name, text in (
        (CheckName.POLICY_ERRORS, f"no policy raised in {tried}"),
        (CheckName.POLICY_SPEED, f"no policy was slow in {tried}"),
    ):
        if name not in names:
            checks.append(ok(name, text))
    return checks


def _of_trial(trial: PolicyTrial) -> list[Check]:
    subject = f"{trial.table} as {trial.label}"
    if trial.failure is not None:
        return [skip(CheckName.POLICY_ERRORS, f"{subject}: not tried: {trial.failure}")]
    if trial.timed_out:
        return [
            fail(
                CheckName.POLICY_SPEED,
                f"{subject}: judging {trial.rows} rows ran into HELIOGRAPH_JUDGEMENT_TIMEOUT_S",
                _faster(trial.table),
                subject=subject,
            )
        ]
    checks: list[Check] = []
    if trial.refusal is not None:
        checks.append(
            fail(
                CheckName.POLICY_ERRORS,
                f"{subject}: the policies can not be used at all: {_in_words(trial.refusal)};"
                " joins are refused",
                _correct(trial),
                subject=subject,
            )
        )
    elif trial.row_error_count:
        states = ", ".join(_in_words(state) for state in trial.row_errors)
        checks.append(
            fail(
                CheckName.POLICY_ERRORS,
                f"{subject}: the policies raise on {trial.row_error_count} of {trial.rows} rows:"
                f" {states}; such rows are told to nobody",
                _correct(trial),
                subject=subject,
            )
        )
    if trial.took_s > DOCTOR_POLICY_S_MAX:
        checks.append(
            warn(
                CheckName.POLICY_SPEED,
                f"{subject}: judging {trial.rows} rows took {trial.took_s:.2f} s"
                f" ({trial.took_s / max(trial.rows, 1) * 1000:.1f} ms a row)",
                _faster(trial.table),
                subject=subject,
            )
        )
    return checks


def _correct(trial: PolicyTrial) -> str:
    return (
        f"correct the SELECT policies of {trial.table}: \\d {trial.table} in psql lists them, and"
        " SET ROLE with a SELECT of all its rows shows the same error"
    )


def _faster(table: str) -> str:
    return (
        f"write calls as sub-selects, so that they are made once and not per row: (SELECT"
        f" auth.uid()) = user_id; index what the policies of {table} look up; mark their functions"
        " STABLE"
    )


def _in_words(sqlstate: str) -> str:
    words = _STATES.get(sqlstate)
    return f"SQLSTATE {sqlstate}" if words is None else f"{words} (SQLSTATE {sqlstate})"
