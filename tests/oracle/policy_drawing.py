"""Policies drawn at random, in the ways that people write them, and filters to go with them.

Every expression is total: no row and no claims of the oracle make it raise, because SELECT would
then fail as a whole where a judgement denies one row.
"""

import random
from dataclasses import dataclass

#: What policies read besides the row. Members and organizations have row security of their own, so
#: a sub-select over them shows each user something else; the functions pass by it.
RIGHTS = """
create table members (user_id uuid, org int, level int not null, primary key (user_id, org));
create table orgs (id int primary key, is_open bool not null);
alter table members enable row level security;
alter table orgs enable row level security;
create policy own on members for select to authenticated using (user_id = auth.uid());
create policy open on orgs for select using (is_open or exists (
  select from members m where m.user_id = auth.uid() and m.org = orgs.id));
create function is_member(u uuid, o int) returns bool language plpgsql stable security definer
  set search_path = '' as
  $$ begin return exists (select from public.members where user_id = u and org = o); end $$;
create function my_level(o int) returns int language sql stable security definer
  set search_path = '' as
  $$ select coalesce(max(level), 0) from public.members where user_id = auth.uid()
      and org = o $$;
create function my_orgs() returns setof int language sql stable security definer
  set search_path = '' as $$ select org from public.members where user_id = auth.uid() $$;
create function claimed_org() returns int language sql stable as
  $$ select (auth.jwt() -> 'app_metadata' ->> 'org')::int $$;
"""

COLUMNS = "(id int primary key, org int, owner uuid, note text, rank numeric, is_done bool)"

#: Tests of the row alone.
_OF_ROW = (
    *("org = {n}", "org <> {n}", "org in ({n}, 3)", "org is distinct from {n}", "org >= {n}"),
    *("note = 'pear'", "note like 'p%'", "note ilike '%E'", "note < 'm'", "length(note) > 4"),
    *("rank > {n}0", "rank between {n}0 and 60", "coalesce(rank, 0) < {n}0", "is_done"),
    *("id % {n} = 0", "id <= {n} * 3", "note is null", "rank is not null", "owner is null"),
    *("is_done is not true", "org is null or rank is null", "(org, is_done) = ({n}, true)"),
)

#: Tests that know who asks; `{t}` is the table.
_OF_USER = (
    *("owner = auth.uid()", "owner = (select auth.uid())", "owner <> auth.uid()"),
    *("auth.uid() is not null", "auth.role() = 'anon'", "auth.jwt() ->> 'role' <> 'anon'"),
    *("org = claimed_org()", "org = (select (auth.jwt() -> 'app_metadata' ->> 'org')::int)"),
    *("auth.jwt() -> 'app_metadata' -> 'notes' ? note", "auth.email() like '%.example'"),
    "exists (select from members m where m.user_id = auth.uid() and m.org = {t}.org)",
    "exists (select from members m where m.org = {t}.org and m.level >= {n})",
    "not exists (select from members m where m.org = {t}.org)",
    "org in (select m.org from members m where m.user_id = (select auth.uid()))",
    "org not in (select m.org from members m where m.level > 1)",
    "(select count(*) from members m where m.org = {t}.org and m.level < 3) = 1",
    "(select o.is_open from orgs o where o.id = {t}.org)",
    "exists (select from orgs o join members m on m.org = o.id where o.id = {t}.org)",
    *("is_member(auth.uid(), org)", "(select is_member(auth.uid(), {n}))", "my_level(org) >= {n}"),
    *("is_member(owner, org)", "org in (select my_orgs())", "org = any (array(select my_orgs()))"),
)

_JOINED = (
    *("({a}) and ({b})", "({a}) or ({b})", "not ({a})", "({a}) is true", "({a}) is not false"),
    *("({a}) is null or ({b})", "case when {a} then {b} else {c} end", "coalesce(({a}), ({b}))"),
    *("({a}) and not ({b})", "({a}) or ({b}) or ({c})"),
)

#: For whom; the last one twice, as it is the usual one.
_ROLES = ("public", "anon", "authenticated, anon", "authenticated", "authenticated")

#: A filter as the client writes it, as SQL, and which keys pass it when nothing else is known.
FILTERS = (
    (None, "true", range(100)),
    (None, "true", range(100)),
    ("id=lte.6", "id <= 6", range(7)),
    ("org=eq.2", "org = 2", ()),
    ("org=in.(1,3)", "org in (1, 3)", ()),
    ("note=like.p%", "note like 'p%'", ()),
    ("rank=gt.30,org=neq.1", "rank > 30 and org <> 1", ()),
    ("is_done=is.true", "is_done is true", ()),
    ("note=not.is.null", "note is not null", ()),
)


def draw_expression(rng: random.Random, name: str, depth: int = 2) -> str:
    """Draw a condition on a row of the table ``name``."""
    if depth == 0 or rng.random() < 0.25:
        leaf = rng.choice(_OF_ROW if rng.random() < 0.45 else _OF_USER)
        return leaf.format(n=rng.randint(1, 4), t=name)
    parts = [draw_expression(rng, name, depth - 1) for _ in "abc"]
    return rng.choice(_JOINED).format(**dict(zip("abc", parts, strict=True)))


@dataclass(frozen=True)
class DrawnPolicy:
    """One policy of a table."""

    name: str
    table: str
    kind: str
    command: str
    roles: str
    using: str

    def create(self) -> str:
        """Return the statement that makes it."""
        return (
            f"create policy {self.name} on {self.table} as {self.kind} for {self.command}"
            f" to {self.roles} using ({self.using})"
        )

    def drop(self) -> str:
        """Return the statement that removes it."""
        return f"drop policy {self.name} on {self.table}"


def draw_policies(rng: random.Random, table: str) -> list[DrawnPolicy]:
    """Draw the policies of a table: who may select, and some that must not matter for it."""
    kinds = ["permissive"] * rng.randint(1, 3) + ["restrictive"] * rng.choice([0, 0, 0, 1, 2])
    drawn = [
        DrawnPolicy(
            f"p{number}",
            table,
            kind,
            rng.choice(["select", "all"]),
            rng.choice(_ROLES),
            draw_expression(rng, table),
        )
        for number, kind in enumerate(kinds)
    ]
    if rng.random() < 0.3:
        kind, using = rng.choice([("permissive", "true"), ("restrictive", "false")])
        drawn.append(
            DrawnPolicy("other", table, kind, rng.choice(["update", "delete"]), "public", using)
        )
    return drawn
