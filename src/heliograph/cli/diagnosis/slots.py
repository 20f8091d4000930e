"""Replication slots: is ours there, read, near enough; and do others fill the disk."""

from collections.abc import Sequence
from typing import Final

from heliograph.cli.diagnosis.check import Check, CheckName, fail, ok, skip, warn
from heliograph.limits import DOCTOR_SLOT_BYTES_MAX
from heliograph.postgres.slot_usage import SlotUsage

_MIB: Final = 1024 * 1024


def judge_slots(slots: Sequence[SlotUsage], *, ours: str, server_answers: bool) -> list[Check]:
    """Judge all slots of the cluster.

    Args:
        slots: From `read_slots`.
        ours: Name of our slot.
        server_answers: Whether a server of ours answered at the address that was asked.
    """
    mine = next((slot for slot in slots if slot.name == ours), None)
    others = [slot for slot in slots if slot.name != ours]
    checks = [_judge_presence(mine, ours, server_answers=server_answers)]
    if mine is not None:
        checks += [_judge_loss(mine), _judge_lag(mine)]
    heavy = [slot for slot in others if slot.retained_bytes > DOCTOR_SLOT_BYTES_MAX]
    checks += [_heavy(slot) for slot in heavy]
    if not heavy:
        text = f"{len(others)} other slots, none of which holds much WAL"
        checks.append(ok(CheckName.OTHER_SLOTS, text))
    return checks


def _judge_presence(slot: SlotUsage | None, name: str, *, server_answers: bool) -> Check:
    if slot is None and server_answers:
        return fail(
            CheckName.SLOT,
            f"a server runs, but there is no slot {name}: it reads another one or elsewhere",
            "give `heliograph doctor` the same HELIOGRAPH_SLOT and DATABASE_URL as the server",
            subject=name,
        )
    if slot is None:
        text = f"there is no slot {name} yet: the first start of the server makes it"
        return skip(CheckName.SLOT, text)
    if slot.is_active:
        holder = f"{slot.holder_name or 'somebody'} (process {slot.holder_pid} of PostgreSQL"
        holder += f", from {slot.holder_address})" if slot.holder_address else ")"
        if server_answers:
            return ok(CheckName.SLOT, f"{name} is read by {holder}", subject=name)
        return warn(
            CheckName.SLOT,
            f"{name} is read by {holder}, and no server answers here: another process has it",
            "end the other server, or set another HELIOGRAPH_SLOT for this one; a server that"
            " starts on a slot in use takes it over from a dead reader of ours, and waits for"
            " others",
            subject=name,
        )
    if slot.wal_status == "lost":
        return skip(CheckName.SLOT, f"nobody reads {name}, which is lost")
    return fail(
        CheckName.SLOT,
        f"nobody reads {name}: PostgreSQL keeps all WAL for it ({_size(slot.retained_bytes)} now)",
        "start the server (`heliograph serve`); if it is to be gone for good:"
        f" SELECT pg_drop_replication_slot('{name}');",
        subject=name,
    )


def _judge_loss(slot: SlotUsage) -> Check:
    if slot.wal_status == "lost":
        return fail(
            CheckName.SLOT_LOST,
            f"{slot.name} is lost: PostgreSQL has removed WAL that was not read",
            "start the server, which makes it anew and tells every subscriber `resync`; then raise"
            " max_slot_wal_keep_size, or stop the server for shorter times",
            subject=slot.name,
        )
    if slot.wal_status == "unreserved":
        return warn(
            CheckName.SLOT_LOST,
            f"{slot.name} is about to be lost: the next checkpoint may remove WAL not read yet",
            "start the server now, and raise max_slot_wal_keep_size",
            subject=slot.name,
        )
    left = "no limit" if slot.safe_bytes is None else f"{_size(slot.safe_bytes)} may still come"
    return ok(CheckName.SLOT_LOST, f"{slot.name} has all its WAL; {left}", subject=slot.name)


def _judge_lag(slot: SlotUsage) -> Check:
    text = f"{slot.name} holds {_size(slot.retained_bytes)} of WAL"
    if slot.retained_bytes <= DOCTOR_SLOT_BYTES_MAX:
        return ok(CheckName.SLOT_LAG, text, subject=slot.name)
    return warn(
        CheckName.SLOT_LAG,
        text,
        "if the server runs, it can not keep up: look for slow policies, and for one transaction"
        " that is open for hours (pg_stat_activity, xact_start); if it does not, start it",
        subject=slot.name,
    )


def _heavy(slot: SlotUsage) -> Check:
    state = "is read" if slot.is_active else "nobody reads it"
    return warn(
        CheckName.OTHER_SLOTS,
        f"the slot {slot.name} is not ours and holds {_size(slot.retained_bytes)} of WAL; {state}",
        "find out whose it is (pg_replication_slots); if nobody's:"
        f" SELECT pg_drop_replication_slot('{slot.name}');",
        subject=slot.name,
    )


def _size(count: int) -> str:
    return f"{count / _MIB:,.1f} MiB"
