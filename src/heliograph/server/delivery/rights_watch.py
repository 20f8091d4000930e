"""Whether rights stayed as they were from a commit until it was judged (`visibility.md` §6).

The rights by which the server judges (policies as text, columns to show) were read at some moment,
and with them what decides them (`RightsState`). A judgement's closing snapshot reads the same
again: is it equal, then nothing changed between the two. So a change may be shown if the judgement
closes with the state that the rights in use were read under, and the change was not visible yet
when that state was first seen. Otherwise rights changed around it, and nobody can tell on which
side: it becomes ``resync``, and the rights are read again.

Where event triggers report definitions in commit order (`rights_log`), only roles and their
memberships are compared, which no event trigger reports.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final, NamedTuple

from heliograph.core.replication.lsn import Lsn
from heliograph.errors import UnavailableError
from heliograph.postgres.rights_state import RightsQuestion, RightsState

#: The part of a state that concerns every table; relations have their oids.
GENERAL: Final = 0


class _Known(NamedTuple):
    """One part of the state that the rights in use were read under, and where it was first seen."""

    value: str | int
    since: RightsState


class RightsWatch:
    """Compares; belongs to the event loop.

    Attributes:
        question: What is to be read with every judgement.
        read_again: Reads all rights again because a state differs; set once, before the stream
            begins.
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
        self._take = look
        self._known: dict[int, _Known] = {}
        self._looking = asyncio.Lock()
        self._looks_begun = 0
        self._last: RightsState | UnavailableError | None = None
        self.question = RightsQuestion(reads_definitions)
        self.read_again: Callable[[RightsState], Awaitable[None]] | None = None

    @property
    def must_look(self) -> bool:
        """Whether even a change for which nobody has to be asked needs a look at the rights."""
        return self.question.reads_definitions

    async def look(self) -> RightsState:
        """Read the state in a snapshot taken after this call; one look for all who wait.

        Raises:
            UnavailableError: If the database does not answer.
        """
        begun_before = self._looks_begun
        async with self._looking:
            if self._looks_begun == begun_before:
                self._looks_begun += 1
                try:
                    self._last = await self._take(self.question)
                except UnavailableError as error:
                    self._last = error
            if isinstance(self._last, RightsState):
                return self._last
        message = f"what decides rights could not be read: {self._last}"
        raise UnavailableError(message)

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
        for part, value in _parts(state):
            if part in wanted:
                self._known.setdefault(part, _Known(value, state))

    def changed(self, state: RightsState) -> set[int]:
        """Return the parts of a state under which the rights in use were not read."""
        return {
            part
            for part, value in _parts(state)
            if part in self._known and self._known[part].value != value
        }

    def adopt(self, state: RightsState) -> None:
        """Record that all rights in use were read after ``state``, which differed."""
        for part in self.changed(state):
            self._known[part] = _Known(dict(_parts(state))[part], state)

    def restart(self) -> None:
        """Trust nothing that was read so far, because another history begins."""
        self._known = {part: known._replace(value="") for part, known in self._known.items()}

    def held(
        self, state: RightsState, *, commit_lsn: Lsn, xid: int, relations: Iterable[int]
    ) -> bool:
        """Tell whether rights stayed the same from before a commit until a judgement closed.

        Args:
            state: Read when it closed.
            commit_lsn: Commit position of the judged change.
            xid: Its transaction.
            relations: Tables judged and relations read.
        """
        parts = [GENERAL]
        if self.question.reads_definitions:
            parts.extend(relations)
        values = dict(_parts(state))
        for part in parts:
            known = self._known.get(part)
            if known is None or values.get(part) != known.value:
                return False
            since = known.since
            if commit_lsn < since.insert_lsn and since.snapshot.sees(xid):
                return False
        return True


def _parts(state: RightsState) -> Iterable[tuple[int, str | int]]:
    yield GENERAL, state.general
    yield from state.relations.items()
