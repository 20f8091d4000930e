"""The rows that one client keeps, and whether what it is told can be right.

The strictest reading of docs/howto/resume.md: changes are applied transaction by transaction. Each
transaction ends with its number; the numbers have no gap. An old row that is told is the one that
is kept; a row that comes is not there yet. Whatever is shown may be seen under the rights that held
at that number.
"""

import msgspec

from soak.ledger import LawBrokenError
from soak.schema import FULL


class Change(msgspec.Struct):
    """What the checks need of a change."""

    type: str
    table: str
    record: dict | None = None
    old_record: dict | None = None


class Keeper:
    """See the module; knows no connection.

    Attributes:
        rows: By table and id.
        base: Number of the last commit that the last load contained; -1 before the first.
        seen: Number of the last transaction told since then; None if none was.
        streamed: Number of the last transaction told at all: how far the stream is at least. What
            was loaded may be far ahead of that.
        applied: Everything up to this number is in the rows.
        events: Changes applied so far.
    """

    def __init__(self, view, ledger, *, keeps_positions=True):
        self._view = view
        self._ledger = ledger
        self._keeps_positions = keeps_positions
        self._group = []
        self._waits_for_load = False
        self.rows = {part.table: {} for part in view.parts}
        self.base = -1
        self.seen = None
        self.streamed = -1
        self.applied = -1
        self.events = 0

    @property
    def followed(self):
        """Return the number up to which the client has been told or has loaded everything."""
        return self.base if self.seen is None else self.seen

    def loaded(self, rows, number):
        """Take what a SELECT showed at a commit instead of everything before."""
        self.rows = rows
        if self.streamed < 0:
            self.streamed = number
        self.base = self.applied = number
        self.seen = None
        self._group = []
        self._waits_for_load = False

    def cut(self):
        """Forget a transaction that was begun: for who keeps no positions."""
        self._group = []

    def told(self, change):
        """Take a change that counts: the position behind it was told.

        Raises:
            LawBrokenError: It can not be right.
        """
        if change.table != "commits":
            self._group.append(change)
            return
        if change.type != "INSERT":
            raise LawBrokenError("reordered", f"a number was not inserted: {change}")
        group, self._group = self._group, []
        self._take(group, change.record["n"], change.record["changed"])

    def _take(self, group, number, changed):
        if self.seen is not None and number <= self.seen:
            raise LawBrokenError("duplicated", f"commit {number} after {self.seen}")
        expected = self.base + 1 if self.seen is None else self.seen + 1
        if number > expected:
            raise LawBrokenError("lost", f"commits {expected} to {number - 1}: {number} came")
        self.seen = self.streamed = number
        if number <= self.base:
            return
        if not self._keeps_positions and number in self._ledger.truncations:
            # What was inserted with it is told before that it must load.
            self._waits_for_load = any(part.table == "things" for part in self._view.parts)
        if self._waits_for_load:
            return
        try:
            self._apply(group, number)
        except LawBrokenError as error:
            detail = f"in commit {number}: {error.detail}"
            raise LawBrokenError(error.kind, detail) from error
        self._check_count(group, number, changed)
        self.applied = number
        self.events += len(group) + 1

    def _check_count(self, group, number, changed):
        """Who sees every row of every table is told as many changes as were made."""
        sees_all = self._view.user is None and len(self._view.parts) == 3
        # A plain owner's server is some seconds late to notice that a table is not published.
        if (
            changed is None
            or self._ledger.is_plain
            or not sees_all
            or any(part.column for part in self._view.parts)
        ):
            return
        if len(group) != changed:
            kind = "lost" if len(group) < changed else "duplicated"
            raise LawBrokenError(kind, f"commit {number}: {len(group)} changes of {changed}")

    # --- one transaction --------------------------------------------------------------------------

    def _apply(self, group, number):
        """Take out what the old rows name, then put in what the new ones say."""
        coming = []
        for change in group:
            before = self._take_out(change, number)
            if change.record is not None:
                coming.append((change, before))
        for change, before in coming:
            self._put_in(change, before, number)

    def _take_out(self, change, number):
        rows = self.rows[change.table]
        old = change.old_record
        if change.type == "INSERT":
            return None
        if change.table not in FULL:
            key = change.record["id"] if old is None else old["id"]
            kept = rows.pop(key, None)
            if kept is None and change.type == "UPDATE":
                raise LawBrokenError("lost", f"not kept: {change}")
            return kept
        kept = rows.get(old["id"])
        if len(old) == 1:
            self._check_key_only(change, kept, number)
        else:
            self._check_old(change, kept, number)
        return rows.pop(old["id"], None)

    def _check_key_only(self, change, kept, number):
        """Only the key: a row that left, or one that was not seen before."""
        if change.type == "DELETE" and kept is None:
            raise LawBrokenError("lost", f"what left was not kept: {change}")
        if change.type == "UPDATE" and kept and not self._ledger.changes_rights(number):
            raise LawBrokenError("duplicated", f"what enters is kept: {change}, {kept}")

    def _check_old(self, change, kept, number):
        old = change.old_record
        if kept is None:
            raise LawBrokenError("lost", f"the old row was not kept: {change}")
        if kept != old:
            kind = "lost" if old["v"] > kept["v"] else "reordered"
            raise LawBrokenError(kind, f"the old row is another: {change}, {kept}")
        self._check_shown(change.table, old, number)

    def _put_in(self, change, before, number):
        rows, row = self.rows[change.table], change.record
        if before is not None and change.table not in FULL:
            if row["v"] <= before["v"]:
                raise LawBrokenError("reordered", f"an older version: {change}, {before}")
            # A large value that did not change is not in the WAL.
            row = before | row
        if row["id"] in rows:
            raise LawBrokenError("duplicated", f"kept already: {change}, {rows[row['id']]}")
        self._check_shown(change.table, row, number)
        rows[row["id"]] = row

    def _check_shown(self, table, row, number):
        view = self._view
        if set(row) != set(view.columns(table)):
            raise LawBrokenError("leaked", f"other columns of {table}: {sorted(row)}")
        if not view.part(table).holds(row):
            raise LawBrokenError("leaked", f"not let through by the filter: {row}")
        if not self._ledger.may_see(view.user, table, row, number):
            raise LawBrokenError("leaked", f"not visible to {view.user}: {table} {row}")


class ByKey(Keeper):
    """Applies what it is told by primary key and checks nothing, as most applications do.

    What was loaded ahead of the stream is led back by it for a while; in a settled round the rows
    must be right all the same.
    """

    def _take(self, group, number, changed):
        self.seen = self.streamed = number
        self.applied = max(self.applied, number)
        self.events += len(group) + 1
        coming = []
        for change in group:
            rows, old, row = self.rows[change.table], change.old_record, change.record
            before = rows.pop((old or row)["id"], None)
            if row is not None:
                coming.append((rows, (before or {}) | row))
        for rows, row in coming:
            rows[row["id"]] = row
