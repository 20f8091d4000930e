"""From matches to what each group is told: which rows PostgreSQL is asked about, and the answers.

Pure: it builds the batches of one judgement and reads its answers; `lane` asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from heliograph import limits
from heliograph.core.matching.record_literal import arranged, record_literal
from heliograph.core.matching.table_rights import TableRights
from heliograph.core.matching.visibility import (
    DeleteVisibility,
    LeaveEvents,
    Told,
    Verdict,
    told_on_delete,
    told_on_insert,
    told_on_update,
)
from heliograph.core.replication.row_change import ChangeKind, RowChange, Unknown
from heliograph.postgres.judge import Judgement
from heliograph.postgres.judge_statement import JudgementStatement, RowAnswer, RowBatch
from heliograph.server.delivery.groups import Match

if TYPE_CHECKING:
    from heliograph.core.replication.row_change import Row


@dataclass(frozen=True, slots=True)
class VisibilityRules:
    """The two settings that decide what is told.

    Attributes:
        delete_visibility: Who learns of a DELETE.
        leave_events: What is told of a row that leaves the view.
    """

    delete_visibility: DeleteVisibility = DeleteVisibility.AUTO
    leave_events: LeaveEvents = LeaveEvents.DELETE


@dataclass(slots=True)
class Question:
    """The rows of one judging transaction, each version asked once however many want to know.

    They are cut into batches of at most JUDGEMENT_BATCH_ROWS_MAX rows: a statement each, with a
    timeout each.

    Attributes:
        row_count: Row versions in all batches.
    """

    row_count: int = 0
    _batches: list[tuple[JudgementStatement, list[str]]] = field(
        default_factory=list[tuple[JudgementStatement, list[str]]]
    )
    _order: dict[int, int] = field(default_factory=dict[int, int])
    _asked: dict[tuple[int, int, bool], tuple[int, int]] = field(
        default_factory=dict[tuple[int, int, bool], tuple[int, int]]
    )

    def ask(self, statement: JudgementStatement, match: Match, *, new: bool) -> None:
        """Ask about one version of a row."""
        key = (id(statement), id(match.change), new)
        if key in self._asked:
            return
        order = self._order.get(id(statement))
        if order is None or len(self._batches[order][1]) >= limits.JUDGEMENT_BATCH_ROWS_MAX:
            order = self._order[id(statement)] = len(self._batches)
            self._batches.append((statement, []))
        rows = self._batches[order][1]
        self._asked[key] = (order, len(rows))
        rows.append(_literal(match, new=new))
        self.row_count += 1

    def batches(self) -> list[RowBatch]:
        """Return the batches in the order in which answers are read."""
        return [RowBatch(statement, rows) for statement, rows in self._batches]

    def answer(
        self, judgement: Judgement, statement: JudgementStatement, change: RowChange, *, new: bool
    ) -> RowAnswer:
        """Return the answer about one version of a row."""
        order, place = self._asked[(id(statement), id(change), new)]
        return judgement.answers[order][place]


class Judging:
    """Asks and reads the answers for the matches of one lane."""

    def __init__(self, rules: VisibilityRules) -> None:
        """Keep the settings."""
        self._rules = rules

    def ask(self, matches: Sequence[Match], question: Question) -> None:
        """Add to the question what the matches need."""
        for match in matches:
            group = match.group
            if group.is_withheld:
                continue
            rights = group.entry.rights[group.role]
            if match.change.kind is ChangeKind.DELETE:
                statement = self._delete_statement(match, rights)
                if statement is not None and match.old is Verdict.YES:
                    question.ask(statement, match, new=False)
                continue
            if not _must_ask(match, rights):
                continue
            if match.new is Verdict.YES and not _is_undecidable(match, rights):
                question.ask(group.statement(), match, new=True)
            if match.old is Verdict.YES and match.change.old_is_full:
                question.ask(group.statement(), match, new=False)

    def told(self, match: Match, question: Question, judgement: Judgement | None) -> Told | None:
        """Decide about one match once the answers are there.

        Args:
            match: The match.
            question: What was asked, the match included.
            judgement: The answers; None when nothing had to be asked.
        """
        change, group = match.change, match.group
        if group.is_withheld:
            return None
        rights = group.entry.rights[group.role]
        if change.kind is ChangeKind.DELETE:
            return self._told_on_delete(match, rights, question, judgement)
        new = _seen(match, rights, question, judgement, new=True)
        if change.kind is ChangeKind.INSERT:
            return told_on_insert(new)
        old = Verdict.UNDECIDED
        if change.old_is_full:
            old = _seen(match, rights, question, judgement, new=False)
        told = told_on_update(
            new=new,
            old=old,
            old_is_full=change.old_is_full,
            row_security=rights.policies_apply,
        )
        return self._wanted(match, told)

    def is_undecidable(self, match: Match) -> bool:
        """Tell whether the WAL does not carry what the judgement reads, although it should."""
        rights = match.group.entry.rights[match.group.role]
        if match.group.is_withheld:
            return False
        if match.change.kind is ChangeKind.DELETE:
            return self._is_undecidable_delete(match, rights)
        return match.new is Verdict.UNDECIDED or (
            match.new is Verdict.YES and _is_undecidable(match, rights)
        )

    def _is_undecidable_delete(self, match: Match, rights: TableRights) -> bool:
        """Tell whether a partition did not send an old row that FULL promises (`Relation`)."""
        change = match.change
        if change.old_is_full or not change.relation.is_partial or rights.shows_none:
            return False
        is_judged = self._rules.delete_visibility is not DeleteVisibility.COMPATIBLE
        return match.old is Verdict.UNDECIDED or (is_judged and not rights.shows_all)

    def _wanted(self, match: Match, told: Told | None) -> Told | None:
        if told is None:
            return None
        if told.left_view and self._rules.leave_events is LeaveEvents.SILENT:
            return None
        event = match.group.parameters.event
        return told if event in {"*", told.kind.value} else None

    def _delete_statement(self, match: Match, rights: TableRights) -> JudgementStatement | None:
        """Return what must be asked about a deleted row, or None."""
        judged = (
            match.change.old_is_full
            and self._rules.delete_visibility is not DeleteVisibility.COMPATIBLE
        )
        if judged and not (rights.shows_all or rights.shows_none):
            return match.group.statement()
        return match.group.filter_statement() if match.group.filter().sql_terms else None

    def _told_on_delete(
        self,
        match: Match,
        rights: TableRights,
        question: Question,
        judgement: Judgement | None,
    ) -> Told | None:
        filters = match.old
        policy = Verdict.NO if rights.shows_none else Verdict.YES
        statement = self._delete_statement(match, rights)
        if statement is not None and filters is Verdict.YES and judgement is not None:
            answer = question.answer(judgement, statement, match.change, new=False)
            policy = _policy_verdict(answer) if policy is Verdict.YES else policy
            filters = _verdict(answer[1:], raised=not answer)
        told = told_on_delete(
            policy=policy,
            filters=filters,
            old_is_full=match.change.old_is_full,
            row_security=rights.policies_apply,
            setting=self._rules.delete_visibility,
        )
        return self._wanted(match, told)


def _seen(
    match: Match,
    rights: TableRights,
    question: Question,
    judgement: Judgement | None,
    *,
    new: bool,
) -> Verdict:
    filtered = match.new if new else match.old
    if filtered is not Verdict.YES or rights.shows_none:
        return filtered if filtered is Verdict.UNDECIDED else Verdict.NO
    if not _must_ask(match, rights):
        return Verdict.YES
    if new and _is_undecidable(match, rights):
        return Verdict.UNDECIDED
    if judgement is None:
        return Verdict.NO
    answer = question.answer(judgement, match.group.statement(), match.change, new=new)
    return _verdict(answer, raised=not answer)


def _must_ask(match: Match, rights: TableRights) -> bool:
    if rights.shows_none:
        return False
    return not rights.shows_all or bool(match.group.filter().sql_terms)


def _is_undecidable(match: Match, rights: TableRights) -> bool:
    """Tell whether a column that is read is an unchanged large value that was not sent."""
    row = match.change.new
    if row is None or Unknown.UNCHANGED_TOAST not in row:
        return False
    # The filter's own columns were looked at when it was matched.
    reads = rights.policy_columns if not rights.shows_all else frozenset[str]()
    if reads is None:
        return True
    columns = match.change.relation.columns
    return any(
        value is Unknown.UNCHANGED_TOAST and columns[place].name in reads
        for place, value in enumerate(row)
    )


def _policy_verdict(answer: RowAnswer) -> Verdict:
    return Verdict.YES if answer and answer[0] is True else Verdict.NO


def _verdict(parts: Sequence[bool | None], *, raised: bool) -> Verdict:
    return Verdict.YES if not raised and all(part is True for part in parts) else Verdict.NO


def _literal(match: Match, *, new: bool) -> str:
    layout = match.group.entry.layout
    row: Row | None = match.change.new if new else match.change.old
    if layout is None or row is None:
        message = "a row version was asked about that does not exist"
        raise AssertionError(message)
    return record_literal(arranged(row, layout.places))
