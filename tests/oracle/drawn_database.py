"""A database whose policies, members and transactions are drawn, and what SELECT shows there.

Every transaction ends with a mark, a row of the table ``marks`` that everybody may see.
"""

import json
import random

from oracle.policy_drawing import COLUMNS, RIGHTS, draw_policies

UIDS = [f"00000000-0000-0000-0000-00000000000{n}" for n in "123"]
USERS = {
    "ann": {"sub": UIDS[0], "app_metadata": {"org": 1, "notes": ["pear"]}},
    "ben": {"sub": UIDS[1], "app_metadata": {"org": 2, "notes": []}, "email": "ben@shop.example"},
    "cat": {"app_metadata": {"org": 3, "notes": ["plum", "quince"]}},
    "nobody": {"role": "anon"},
}
FULL = ["full1", "full2", "full3"]
KEYED = ["keyed1", "keyed2", "keyed3"]


class DrawnDatabase:
    """Draws all that is written to one database.

    Attributes:
        rng: Where it draws from.
        sql: Writes, as the owner of the tables.
        reader: Looks, as a login that may become every role.
        policies: By table: those that it has.
        mark: The last mark written.
    """

    def __init__(self, seed, sql, reader):
        self.rng = random.Random(seed)
        self.sql, self.reader = sql, reader
        self.policies = {name: [] for name in FULL + KEYED}
        self.mark = 0

    async def make_tables(self):
        await self.sql.execute(RIGHTS)
        await self.sql.execute("create table marks (id int primary key)")
        for name in [*FULL, *KEYED, "marks"]:
            if name != "marks":
                await self.sql.execute(f"create table {name} {COLUMNS}")
            await self.sql.execute(f"alter table {name} enable row level security")
            if name in FULL:
                await self.sql.execute(f"alter table {name} replica identity full")
            await self.sql.execute(f"alter publication supabase_realtime add table {name}")
        await self.sql.execute("create policy p on marks for select using (true)")
        await self.sql.execute("insert into orgs select n, n % 2 = 0 from generate_series(1, 4) n")

    async def change_rights(self):
        """Draw members, and the policies of most tables."""
        for name, drawn in self.policies.items():
            if drawn and self.rng.random() < 0.2:
                continue
            await self.change_policies(name)
        await self.sql.execute("delete from members")
        for uid in UIDS:
            for org in self.rng.sample(range(1, 5), self.rng.randint(1, 3)):
                level = self.rng.randint(1, 3)
                await self.sql.execute("insert into members values (%s, %s, %s)", (uid, org, level))
        await self.open_or_close()

    async def change_policies(self, name):
        """Draw the policies of a table anew, in one transaction."""
        async with self.sql.transaction():
            for policy in self.policies[name]:
                await self.sql.execute(policy.drop())
            self.policies[name] = draw_policies(self.rng, name)
            for policy in self.policies[name]:
                await self.sql.execute(policy.create())

    async def open_or_close(self):
        """Change one organization."""
        await self.sql.execute(
            "update orgs set is_open = not is_open where id = %s", (self.rng.randint(1, 4),)
        )

    async def write_mark(self, _number=None):
        self.mark += 1
        await self.sql.execute("insert into marks values (%s)", (self.mark,))

    def values(self):
        rng = self.rng
        return (
            rng.choice([1, 2, 3, 4, None]),
            rng.choice([*UIDS, None]),
            rng.choice(["pear", "plum", "quince", "apple", None]),
            rng.choice([rng.randint(0, 80), None]),
            rng.choice([True, False, None]),
        )

    async def write(self, name):
        key, values, sql = self.rng.randint(1, 10), self.values(), self.sql
        match self.rng.randint(0, 7):
            case 0 | 1 | 2:
                await sql.execute(
                    f"insert into {name} values (%s, %s, %s, %s, %s, %s) on conflict (id)"
                    " do update set (org, owner, note, rank, is_done) = (excluded.org,"
                    " excluded.owner, excluded.note, excluded.rank, excluded.is_done)",
                    (key, *values),
                )
            case 3:
                await sql.execute(
                    f"update {name} set org = %s, owner = %s where id %% 3 = %s",
                    (*values[:2], key % 3),
                )
            case 4:
                await sql.execute(
                    f"update {name} set note = %s, is_done = %s where id = %s",
                    (values[2], values[4], key),
                )
            case 5:
                await sql.execute(f"delete from {name} where id in (%s, %s)", (key, key + 1))
            case 6 if name in FULL:
                await sql.execute(
                    f"update {name} set id = %s where id = %s and not exists"
                    f" (select from {name} where id = %s)",
                    (key + 10, key, key + 10),
                )
            case _:
                async with sql.transaction(force_rollback=True):
                    await sql.execute(f"update {name} set owner = %s", (values[1],))


async def become(sql, claims):
    """Have a transaction look with the role and claims of a user."""
    role = claims.get("role", "authenticated")
    claims_json = json.dumps({"role": role, **claims})
    await sql.execute(
        "select set_config('request.jwt.claims', %s, true), set_config('role', %s, true)",
        (claims_json, role),
    )
