"""Judging for one audience until the answer counts, and whether rights held meanwhile.

An answer counts when its snapshot sees the judged transactions and everything dispatched before
them; then the stream is awaited until it has passed the WAL insert position of the judgement's
end, so that every change of rights that it may have seen is known here.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from heliograph import limits
from heliograph.core.matching.filter_parser import FilterTerm
from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import JudgementUnavailableError, UnavailableError
from heliograph.ports.clock import Clock
from heliograph.postgres.judge import Judge, Judgement
from heliograph.postgres.judge_parts import RowError
from heliograph.server.delivery.counters import DeliveryCounters
from heliograph.server.delivery.dependencies import Dependencies
from heliograph.server.delivery.judging import Question
from heliograph.server.delivery.lane_item import LaneItem
from heliograph.server.delivery.positions import Unsettled
from heliograph.server.delivery.progress import StreamProgress
from heliograph.server.delivery.rights_log import RightsLog
from heliograph.server.delivery.rights_watch import ProvenRights, RightsWatch
from heliograph.server.delivery.table_registry import TableRegistry
from heliograph.server.metrics import Metrics

_log = structlog.get_logger("heliograph.delivery")

_UNFOLLOWED_AGE_US_MAX = limits.UNFOLLOWED_JUDGEMENT_AGE_S_MAX * 1_000_000


@dataclass(frozen=True, slots=True)
class AudienceJudgeParts:
    """What judging is built on.

    Attributes:
        judge: The exact path.
        registry: Tables and rights.
        dependencies: What policies read.
        rights_log: Changes of rights in commit order.
        rights: Compares what decides rights with every judgement.
        unsettled: Transactions that a snapshot may not see yet.
        progress: How far the stream was received.
        clock: For durations.
        metrics: For the histogram.
        counters: Totals to add to.
    """

    judge: Judge
    registry: TableRegistry
    dependencies: Dependencies
    rights_log: RightsLog
    rights: RightsWatch
    unsettled: Unsettled
    progress: StreamProgress
    clock: Clock
    metrics: Metrics
    counters: DeliveryCounters


class Audience(Protocol):
    """Who is judged for: a lane; ``judged`` is what its clients chose that PostgreSQL judges."""

    role: str
    claims_json: str
    judged: frozenset[FilterTerm]
    judged_s: float

    @property
    def is_slow(self) -> bool:
        """Whether its judgements may take longer than others should wait."""
        ...


class AudienceJudge:
    """Judges for all lanes; belongs to the event loop."""

    def __init__(self, parts: AudienceJudgeParts) -> None:
        """Wire the parts."""
        self._parts = parts
        self._counters = parts.counters
        self._logged_errors: set[tuple[int, str, str]] = set()

    @property
    def must_look(self) -> bool:
        """Whether rights must be compared even where nothing is judged."""
        return self._parts.rights.must_look

    async def judge(
        self, audience: Audience, question: Question, items: Sequence[LaneItem]
    ) -> Judgement:
        """Judge until the snapshot sees all it must and the stream has passed it.

        Raises:
            UnavailableError: If that could not be had within the bounds.
        """
        transactions = [item.dispatched.transaction for item in items]
        wait_s = limits.JUDGEMENT_REPEAT_WAIT_FIRST_S
        for _ in range(limits.JUDGEMENT_ATTEMPTS_MAX):
            judgement = await self._ask(audience, question)
            if judgement is not None and self._sees(judgement, transactions):
                await self._settle(
                    judgement, question, {t for item in items for t in item.tables()}
                )
                return judgement
            self._counters.repeats["unavailable" if judgement is None else "not_yet_visible"] += 1
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, limits.JUDGEMENT_REPEAT_WAIT_LAST_S)
        message = "no snapshot saw the judged transaction in time"
        raise UnavailableError(message)

    async def _settle(
        self, judgement: Judgement, question: Question, tables: Collection[int]
    ) -> None:
        """Learn all that `rights_changed` must know about a judgement."""
        parts = self._parts
        if question.row_count:
            await parts.progress.wait(judgement.closing.insert_lsn, limits.STREAM_WAIT_S)
            if not parts.dependencies.is_known(judgement.relations_read):
                await parts.dependencies.learn(judgement.relations_read)
            parts.dependencies.note_reads(tables, judgement.relations_read)
        await parts.rights.confirm(judgement.closing)

    async def _ask(self, audience: Audience, question: Question) -> Judgement | None:
        if not question.row_count:
            state = await self._parts.rights.look()
            return Judgement(state.snapshot, state)
        began = self._parts.clock.monotonic_s()
        try:
            judgement = await self._judge_once(audience, question)
        except JudgementUnavailableError as error:
            if error.timed_out:
                raise
            return None
        audience.judged_s = judgement.took_s
        self._counters.judgements += 1
        self._counters.judged_rows += question.row_count
        self._parts.metrics.judgement_seconds.observe(self._parts.clock.monotonic_s() - began)
        for row_error in judgement.row_errors:
            self._count_row_error(audience.role, row_error)
        return judgement

    def _count_row_error(self, role: str, error: RowError) -> None:
        self._counters.row_errors[error.sqlstate[:2]] += 1
        key = (error.table_oid, role, error.sqlstate)
        logged = self._logged_errors
        if key not in logged and len(logged) < limits.ROW_ERRORS_LOGGED_MAX:
            logged.add(key)
            _log.warning(
                "row_denied_by_error",
                table_oid=error.table_oid,
                role=role,
                sqlstate=error.sqlstate,
            )

    async def _judge_once(self, audience: Audience, question: Question) -> Judgement:
        return await self._parts.judge.judge(
            audience.role,
            audience.claims_json,
            question.batches(),
            self._parts.rights.question,
            slow_part=audience.judged if _may_be_slow(audience, question) else None,
        )

    def _sees(self, judgement: Judgement, transactions: Sequence[Transaction]) -> bool:
        snapshot = judgement.snapshot
        if not all(snapshot.sees(transaction.xid) for transaction in transactions):
            return False
        # Not the last one: what one channel is owed of the past comes behind later ones.
        newest = max(transaction.commit_lsn for transaction in transactions)
        return self._parts.unsettled.all_seen_by(snapshot, newest)

    def rights_changed(
        self,
        judgement: Judgement,
        transaction: Transaction,
        table_oids: Collection[int],
        proven: ProvenRights | None,
    ) -> bool:
        """Tell whether rights may have changed between a commit and its judgement.

        Where that can not be known, because a table that was read is not followed, it is assumed
        of what committed long ago.

        Args:
            judgement: The judgement.
            transaction: What was judged.
            table_oids: The tables of its rows that were judged.
            proven: What is known of the time before this process looked, for a channel that
                resumes.
        """
        commit_lsn = transaction.commit_lsn
        if self.is_before_rights(table_oids, commit_lsn):
            return True
        dependencies, read = self._parts.dependencies, judgement.relations_read
        age_us = judgement.closing.taken_us - transaction.commit_time_us
        if age_us > _UNFOLLOWED_AGE_US_MAX and dependencies.reads_unfollowed(read):
            return True
        if not self._parts.rights.held(
            judgement.closing,
            commit_lsn=commit_lsn,
            xid=transaction.xid,
            relations=[*table_oids, *dependencies.with_rights(read)],
            proven=proven,
        ):
            return True
        return self._parts.rights_log.changed_between(
            commit_lsn,
            judgement.snapshot,
            dependencies.stream_oids(read),
            closing=judgement.closing.snapshot,
        )

    def rights_changed_by(self, transaction: Transaction, judgement: Judgement | None) -> bool:
        """Tell whether a transaction may itself have changed what its judgement depended on."""
        read: Collection[int] = ()
        if judgement is not None:
            read = self._parts.dependencies.stream_oids(judgement.relations_read)
        return self._parts.rights_log.changed_by(transaction.commit_lsn, read)

    def is_before_rights(self, table_oids: Iterable[int], commit_lsn: Lsn) -> bool:
        """Tell whether a table's rights were read for a later position than the commit."""
        for oid in table_oids:
            entry = self._parts.registry.entry(oid)
            if entry is not None and entry.valid_since > commit_lsn:
                return True
        return False


def _may_be_slow(audience: Audience, question: Question) -> bool:
    """Tell whether a judgement may hold its connection longer than others should wait."""
    return audience.is_slow or question.row_count > limits.JUDGEMENT_SLOW_ROWS
