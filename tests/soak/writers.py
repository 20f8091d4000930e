"""Writers: transactions of one row to some thousands, concurrent, sometimes rolled back.

And one writer of rights. All end their transactions with a number that is taken under a lock.
"""

import contextlib

import psycopg

from soak.schema import ORGS, POLICIES, USERS, policy_statement
from soak.world import now_s

#: Ids that rows may have; between a third and two thirds of them exist.
SPACES = {"notes": 4_000, "tasks": 2_000, "things": 600}

#: What is written later to a key has a greater version, also where it was deleted in between.
NEW_VERSION = "nextval('versions')"

TAKE_NUMBER = (
    "with taken as (update counter set n = n + 1 returning n)"
    " insert into commits select n, %s, %s, %s from taken returning n"
)

#: Commits by which the clients may be behind before the writers wait for them: a busy machine makes
#: the run smaller, not the clients late beyond the ring.
BEHIND_MAX = 200

#: One of these ends a transaction that others met; it is rolled back and counted.
MET = (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation)

SIZES = (1,) * 24 + (2, 3, 5, 8, 13) * 2 + (60, 150, 400)
LARGE = (1_500, 3_000)


class Pace:
    """How many row changes may have been made by now: in bursts, so many a second on average."""

    PERIOD_S = 6.0

    def __init__(self, per_s):
        self._per_s = per_s
        self._began_s = now_s()

    def allowed(self):
        periods, within_s = divmod(now_s() - self._began_s, self.PERIOD_S)
        whole = self.PERIOD_S / 2
        return self._per_s * (periods * self.PERIOD_S + 2 * min(within_s, whole))


class Writer:
    """One connection that writes."""

    def __init__(self, world, number, pace):
        self._world = world
        self._ledger = world.ledger
        self._number = number
        self._pace = pace
        self._chance = world.chance_of(f"writer {number}")
        self._last = None

    async def run(self):
        """Write until the end, whatever breaks."""
        while not self._world.is_over.is_set():
            with contextlib.suppress(psycopg.OperationalError):
                async with await self._world.connect() as sql:
                    await self._write(sql)
            self._ledger.counts["writers reconnected"] += 1

    async def _write(self, sql):
        while not self._world.is_over.is_set():
            is_early = self._ledger.rows >= self._pace.allowed()
            if is_early or self._world.behind() > BEHIND_MAX:
                await self._world.over_within(0.02)
                continue
            async with self._world.gate.passing():
                try:
                    await self._transaction(sql)
                except MET:
                    self._ledger.counts["rolled back by others"] += 1

    async def _transaction(self, sql):
        chance = self._chance
        count = chance.choice((1, 1, 1, 2, 3))
        is_dropped = chance.random() < 0.03
        changed = 0
        async with sql.transaction(force_rollback=is_dropped):
            row = await (await sql.execute("select nextval('began')")).fetchone()
            began = row[0]
            for _ in range(count):
                changed += await self._statement(sql, began)
            if chance.random() < 0.1:
                # Others that began later commit earlier.
                await self._world.over_within(chance.uniform(0, 0.2))
            # Rows that two statements have changed are told once.
            told = changed if count == 1 else None
            number = await take_number(sql, began, self._number, told)
        if is_dropped:
            self._ledger.counts["rolled back by will"] += 1
            return
        self._ledger.committed = max(self._ledger.committed, number)
        self._ledger.rows += changed + 1
        self._ledger.counts["transactions"] += 1

    async def _statement(self, sql, began):
        chance = self._chance
        if chance.random() < 0.7:
            self._last = None
        if chance.random() < 0.05:
            # What is rolled back to a savepoint was never written.
            async with sql.transaction(force_rollback=True):
                await self._change(sql, began)
        return await self._change(sql, began)

    async def _change(self, sql, began):
        chance = self._chance
        table, first, size = self._last = self._last or self._place()
        kinds = ("insert", "update", "delete", "move")
        kind = chance.choices(kinds, (30, 50, 20, 3 if table == "notes" else 0))[0]
        body = f"{table} of {began} by {self._number} "
        if chance.random() < 0.03 and size < 50:
            body += chance.randbytes(2_500).hex()
        statement, values = getattr(self, f"_{kind}")(table, began, body)
        done = await sql.execute(statement, (*values, first, first + size - 1))
        return done.rowcount

    def _place(self):
        """Draw where a statement writes; the next one of its transaction may write there, too."""
        chance = self._chance
        table = chance.choices(("notes", "tasks", "things"), (7, 2, 1))[0]
        space = SPACES[table]
        size = chance.choice(LARGE if chance.random() < 0.004 else SIZES)
        size = min(size, space // 2 if table != "things" else 20)
        return table, chance.randrange(space - size + 1), size

    def _insert(self, table, began, body):
        columns, values = self._row(table)
        statement = (
            f"insert into {table} (id, v, began, body{columns})"
            f" select g, {NEW_VERSION}, %s, %s || g{values}"
            " from generate_series(%s::int, %s::int) g"
            " on conflict do nothing"
        )
        return statement, (began, body)

    def _row(self, table):
        """Return the other columns of a new row, and what stands in them."""
        chance = self._chance
        if table == "notes":
            return ", org, secret", f", (g + {chance.randrange(ORGS)}) %% {ORGS}, 's' || g"
        if table == "tasks":
            users = ", ".join(f"'{user}'" for user in USERS)
            place = f"1 + (g + {chance.randrange(len(USERS))}) %% {len(USERS)}"
            return ", owner", f", (array[{users}]::uuid[])[{place}]"
        return ", shelf", f", {chance.randrange(10)}"

    def _update(self, table, began, body):
        chance = self._chance
        more = ""
        if table == "notes" and chance.random() < 0.5:
            more = f", org = (org + {chance.choice((1, 7, 27))}) %% {ORGS}"
        if table == "tasks" and chance.random() < 0.3:
            more = f", owner = '{chance.choice(USERS)}'"
        keeps_body = chance.random() < 0.3
        text = "body = coalesce(body, %s)" if keeps_body else "body = %s || id"
        values = f"v = {NEW_VERSION}, began = %s, {text}{more}"
        return f"update {table} set {values} where id between %s and %s", (began, body)

    def _move(self, table, began, body):
        """Give rows other keys, and those that have such keys their first ones."""
        moved = SPACES[table]
        keys = f"case when id < {moved} then id + {moved} else id - {moved} end"
        statement = (
            f"update {table} set v = {NEW_VERSION}, began = %s, id = {keys}"
            f" where id %% {moved} between %s and %s"
        )
        return statement, (began,)

    def _delete(self, table, began, body):
        return f"delete from {table} where id %% {SPACES[table]} between %s and %s", ()


async def take_number(sql, began, writer, changed):
    """Take the number of a transaction; the next writer waits until it has committed."""
    row = await (await sql.execute(TAKE_NUMBER, (began, writer, changed))).fetchone()
    return row[0]


class RightsWriter:
    """Changes memberships and policies, each in a numbered transaction, sometimes with a row."""

    NUMBER = 99

    def __init__(self, world):
        self._world = world
        self._ledger = world.ledger
        self._chance = world.chance_of("rights")

    async def change_membership(self):
        """Take a member out or in."""
        members, policy = self._ledger.rights_at(1 << 62)
        user, org = self._chance.choice(USERS), self._chance.randrange(3, ORGS)
        mine = [entry for entry in sorted(members) if entry[0] == user]
        if len(mine) > 2:
            user, org = self._chance.choice(mine)
            statement = f"delete from members where owner = '{user}' and org = {org}"
            members = members - {(user, org)}
        else:
            statement = f"insert into members values ('{user}', {org}) on conflict do nothing"
            members = members | {(user, org)}
        await self._commit("membership", statement, members, policy)

    async def change_policy(self):
        """Make the policy of notes the other one."""
        members, policy = self._ledger.rights_at(1 << 62)
        policy = next(name for name in POLICIES if name != policy)
        await self._commit("policy", policy_statement(policy), members, policy)

    async def truncate(self):
        """Empty a table, and fill it again in the same transaction or not."""
        refill = (
            f"; insert into things select g, g % 10, {NEW_VERSION}, 0, 'new'"
            " from generate_series(0, 99) g"
            if self._chance.random() < 0.5
            else ""
        )
        with self._ledger.cause("truncated"):
            await self.number_with(f"truncate things{refill}")

    async def number_with(self, statements):
        """Run statements in a numbered transaction of its own; repeat it until it has committed."""
        while not self._world.is_over.is_set():
            with contextlib.suppress(psycopg.OperationalError, *MET):
                async with await self._world.connect() as sql:
                    async with sql.transaction():
                        await sql.execute(statements)
                        number = await take_number(sql, 0, self.NUMBER, None)
                        if statements.startswith("truncate"):
                            self._ledger.truncations.add(number)
                    self._ledger.committed = max(self._ledger.committed, number)
                    return

    async def _commit(self, kind, statement, members, policy):
        """Commit a change of rights; what is told is checked by what holds from its number on."""
        with self._ledger.cause(kind):
            while not self._world.is_over.is_set():
                if await self._try_commit(statement, members, policy):
                    return

    async def _try_commit(self, statement, members, policy):
        number = began = None
        try:
            async with await self._world.connect() as sql:
                async with sql.transaction():
                    row = await (await sql.execute("select nextval('began')")).fetchone()
                    began = row[0]
                    if self._chance.random() < 0.5:
                        await sql.execute(f"update notes set v = {NEW_VERSION} where id < 40")
                    await sql.execute(statement)
                    number = await take_number(sql, began, self.NUMBER, None)
                    self._ledger.rights_from(number, members, policy)
                self._ledger.committed = max(self._ledger.committed, number)
                return True
        except (psycopg.OperationalError, *MET):
            return number is not None and await self._has_committed(number, began)

    async def _has_committed(self, number, began):
        """Ask for a commit whose answer was lost."""
        async with await self._world.connect() as sql:
            query = "select from commits where n = %s and began = %s"
            row = await (await sql.execute(query, (number, began))).fetchone()
        if row is None:
            self._ledger.forget_rights_from(number)
        return row is not None
