"""What the soak writes and who looks at it: tables, users, policies, and each client's view.

Every transaction ends with a row in ``commits`` whose number was taken under a lock that is held
until the commit. So the numbers say the order of commits, without a gap, whoever wrote them.
"""

from dataclasses import dataclass

USERS = tuple(f"00000000-0000-0000-0000-0000000000{number:02d}" for number in range(1, 11))

#: Organizations 0 to 29. Nobody is ever a member of the first three.
ORGS = 30
HIDDEN_ORGS = (0, 1, 2)
#: What the policy of notes shows to everybody while it is the wider one of the two.
OPEN_ORGS = (27, 28, 29)
SHELVES = 10

POLICIES = {
    "members": "exists (select from members m where m.org = notes.org and m.owner = {user})",
    "members_or_open": (
        "org >= 27 or exists (select from members m where m.org = notes.org and m.owner = {user})"
    ),
}
_USER = "(select auth.uid())"


def policy_statement(name):
    """Return what makes the policy of notes one of `POLICIES`."""
    return f"alter policy shown on notes using ({POLICIES[name].format(user=_USER)})"


# A plain owner's service_role does not bypass row security.
SCHEMA = f"""
create table counter (n bigint not null);
insert into counter values (0);
create sequence began;
create sequence versions;
create table commits (n bigint primary key, began bigint, writer int, changed int);
create table members (owner uuid, org int, primary key (owner, org));
create table notes (id int primary key, org int, v bigint, began bigint, body text, secret text);
create table tasks (id int primary key, owner uuid, v bigint, began bigint, body text);
create table things (id int primary key, shelf int, v bigint, began bigint, body text);
alter table things alter body set storage external;
alter table notes alter body set storage external;
alter table notes replica identity full;
alter table tasks replica identity full;
alter table commits enable row level security;
alter table notes enable row level security;
alter table tasks enable row level security;
alter table things enable row level security;
create policy shown on commits for select to authenticated using (true);
create policy shown on notes for select to authenticated
  using ({POLICIES["members"].format(user=_USER)});
create policy shown on tasks for select to authenticated using (owner = {_USER});
create policy shown on things for select to authenticated using (true);
create policy everything on commits for select to service_role using (true);
create policy everything on notes for select to service_role using (true);
create policy everything on tasks for select to service_role using (true);
create policy everything on things for select to service_role using (true);
revoke all on notes from authenticated, anon;
grant select on commits, members, tasks, things to authenticated;
grant select (id, org, v, began, body) on notes to authenticated;
grant select on commits, members, notes, tasks, things to service_role;
alter publication supabase_realtime add table commits, notes, tasks, things;
"""

COLUMNS = {
    "notes": ("id", "org", "v", "began", "body"),
    "tasks": ("id", "owner", "v", "began", "body"),
    "things": ("id", "shelf", "v", "began", "body"),
}

#: Tables whose old rows are in the WAL.
FULL = frozenset({"notes", "tasks"})


@dataclass(frozen=True)
class Shown:
    """A part of a table that a client subscribes to: rows whose column is one of some values.

    Attributes:
        table: Its name.
        column: Filtered by; None for every row.
        values: Of that column.
    """

    table: str
    column: str | None = None
    values: tuple[int, ...] = ()

    def entry(self):
        """Return the entry of ``postgres_changes``."""
        entry = {"event": "*", "schema": "public", "table": self.table}
        if self.column is not None:
            one, several = f"eq.{self.values[0]}", f"in.({','.join(map(str, self.values))})"
            entry["filter"] = f"{self.column}={one if len(self.values) == 1 else several}"
        return entry

    def holds(self, row):
        """Tell whether the filter lets a row through."""
        return self.column is None or row[self.column] in self.values

    def query(self, columns):
        """Return the SELECT that loads it."""
        named = ", ".join(columns)
        where = f" where {self.column} = any(array{list(self.values)})" if self.column else ""
        return f"select to_jsonb(t) from (select {named} from {self.table}{where}) t"


@dataclass(frozen=True)
class View:
    """What one client follows, and as whom.

    Attributes:
        user: Of `USERS`; None for the service role.
        parts: At most one for each table.
    """

    user: str | None
    parts: tuple[Shown, ...]

    def entries(self):
        """Return the entries of its join; the numbers of the commits are among them."""
        return [Shown("commits").entry(), *(part.entry() for part in self.parts)]

    def part(self, table):
        """Return the part of a table."""
        return next(part for part in self.parts if part.table == table)

    def columns(self, table):
        """Return the columns that it may see."""
        more = ("secret",) if table == "notes" and self.user is None else ()
        return COLUMNS[table] + more
