"""Whether rights stayed as they were from a commit until it was judged (`visibility.md` §6).

The rights by which the server judges (policies as text, columns to show) were read at some moment,
and with them what decides them (`RightsState`). A judgement's closing snapshot reads the same
again: is it equal, then nothing changed between the two. So a change may be shown if the judgement
closes with the state that the rights in use were read under, and the change was not visible yet
when that state was first seen. Otherwise rights changed around it, and nobody can tell on which
side: it becomes ``resync``, and the rights are read again.

What is made and dropped again leaves an equal state. It is noticed by any look in between, and
looks are taken every `limits.CATALOG_CHECK_INTERVAL_S` seconds however far the stream lags.

Where event triggers report definitions in commit order (`rights_log`), only roles and their
memberships are compared, which no event trigger reports.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final, NamedTuple

from heliograph.core.replication.lsn import Lsn
from heliograph.postgres.rights_state import RightsQuestion, RightsState
from heliograph.server.delivery.shared_answer import SharedAnswer

#: The part of a state that concerns every table; relations have their oids.
GENERAL: Final = 0


class _Known(NamedTuple):
    """One part of the state that the rights in use were read under, and where it was first seen."""

    value: str | int
    since: RightsState


class ProvenRights(NamedTuple):
    """What decided rights was the same at a position of the past as when its client came back.

    A position carries a fingerprint of it (`fingerprints`), so a change in between shows, but for
    what was changed and put back.

    Attributes:
        since: The position.
        parts: What the fingerprint stands for: `GENERAL` and relations.
    """

    since: Lsn
    parts: frozenset[int]


class RightsWatch:
    """Compares; belongs to the event loop.

    Attributes:
        question: What is to be read with every judgement.
        read_again: Reads all rights again if any part is disputed; set once, before the stream
            begins.
        on_changed: Told which parts have changed, once rights were read again; set once as well.
        version: Grows with every change of what is known.
    """

    def __init__(
        self,
        look: Callable[[RightsQuestion], Awaitable[RightsState]],
        *,
        reads_definitions: bool,
    ) -> None:
        """Start with nothing known.

        Args:
            look: Reads the state in a snapshot of its own.
            reads_definitions: Whether nobody else reports changed definitions.
        """
        self._answer = SharedAnswer(lambda: look(self.question))
        self._known: dict[int, _Known] = {}
        self._disputed: set[int] = set()
        #: Of these, what was seen to differ; the rest is only not trusted any more.
        self._differed: set[int] = set()
        self.question = RightsQuestion(reads_definitions)
        self.read_again: Callable[[], Awaitable[None]] | None = None
        self.on_changed: Callable[[Collection[int]], None] | None = None
        self.version = 0

    def value(self, part: int) -> str | int | None:
        """Return what is known of a part; None if nothing is."""
        known = self._known.get(part)
        return None if known is None else known.value

    @property
    def must_look(self) -> bool:
        """Whether even a change for which nobody has to be asked needs a look at the rights."""
        return self.question.reads_definitions

    async def look(self) -> RightsState:
        """Read the state in a snapshot taken after this call; one look for all who wait.

        Raises:
            UnavailableError: If the database does not answer.
        """
        return await self._answer.get()

    async def confirm(self, state: RightsState | None = None) -> None:
        """Compare, and have all rights read again if need be.

        Args:
            state: What a judgement closed with; None: look now, because some rights were just
                read, and nobody has compared what they were read under.

        Raises:
            UnavailableError: If the database does not answer.
        """
        if self.compare(state or await self.look()) and self.read_again is not None:
            await self.read_again()

    async def watch(self, relations: Collection[int]) -> None:
        """Have relations compared from now on; their rights must be read after this call.

        Raises:
            UnavailableError: If the database does not answer.
        """
        if self.question.reads_definitions:
            new = set(relations) - set(self.question.relations)
            if new:
                everything = (*self.question.relations, *sorted(new))
                self.question = RightsQuestion(reads_definitions=True, relations=everything)
            wanted = {GENERAL, *relations}
        else:
            wanted = {GENERAL}
        if wanted <= self._known.keys():
            return
        state = await self.look()
        self.version += 1
        for part, value in _parts(state):
            if part in wanted:
                self._known.setdefault(part, _Known(value, state))

    async def look_before_reading(self) -> None:
        """Compare before rights are read, as `confirm` does afterwards.

        Rights that are read while a membership exists for a moment would be used for good if only
        states from before and after that moment were compared.

        Raises:
            UnavailableError: If the database does not answer.
        """
        self.compare(await self.look())

    def compare(self, state: RightsState) -> bool:
        """Tell whether all rights must be read again, because some part is disputed.

        A part is disputed from the moment at which a state differs from the one that the rights in
        use were read under until they were read again, even if a later state is like it again.
        """
        changed = self._changed(state)
        self._disputed |= changed
        self._differed |= changed
        return self.is_disputed

    @property
    def is_disputed(self) -> bool:
        """Whether rights must be read again."""
        return bool(self._disputed)

    def disputed(self) -> set[int]:
        """Return what is disputed, to be handed to `adopt` once rights were read again."""
        return set(self._disputed)

    def adopt(self, state: RightsState, disputed: Collection[int]) -> None:
        """Record that all rights in use were read after ``state``.

        Args:
            state: What was looked at before they were read.
            disputed: What was disputed before that look.
        """
        values = dict(_parts(state))
        changed = self._changed(state) | (set(disputed) & values.keys())
        self._differed |= self._changed(state)
        for part in changed:
            self._known[part] = _Known(values[part], state)
        self._disputed -= set(disputed)
        self.version += 1
        differed = changed & self._differed
        self._differed -= changed
        if differed and self.on_changed is not None:
            self.on_changed(differed)

    def _changed(self, state: RightsState) -> set[int]:
        return {
            part
            for part, value in _parts(state)
            if part in self._known and self._known[part].value != value
        }

    def restart(self) -> None:
        """Trust nothing that was read so far, because another history begins."""
        self._disputed |= self._known.keys()

    def held(
        self,
        state: RightsState,
        *,
        commit_lsn: Lsn,
        xid: int,
        relations: Iterable[int],
        proven: ProvenRights | None = None,
    ) -> bool:
        """Tell whether rights stayed the same from before a commit until a judgement closed.

        Args:
            state: Read when it closed.
            commit_lsn: Commit position of the judged change.
            xid: Its transaction.
            relations: Tables judged and relations read.
            proven: What is known of the time before the first look.
        """
        parts = [GENERAL]
        if self.question.reads_definitions:
            parts.extend(relations)
        values = dict(_parts(state))
        for part in parts:
            known = self._known.get(part)
            if known is None or part in self._disputed or values.get(part) != known.value:
                return False
            if proven is not None and part in proven.parts and commit_lsn > proven.since:
                continue
            since = known.since
            if commit_lsn < since.insert_lsn and since.snapshot.sees(xid):
                return False
        return True


def _parts(state: RightsState) -> Iterable[tuple[int, str | int]]:
    yield GENERAL, state.general
    yield from state.relations.items()
