"""The numbered files: well formed, numbered once, and refused when they are not."""

import pytest

from heliograph.errors import LocalProtocolError
from heliograph.postgres.database_rights import DatabaseRights, RoleRights
from heliograph.postgres.migrate import print_sql
from heliograph.postgres.migration_files import (
    MigrationMode,
    load_migrations,
    migrations_of,
    read_migration,
)

HEADER = "-- title: roles\n-- modes: fresh\n-- without: nobody\n"


def test_the_header_says_what_a_migration_is():
    migration = read_migration(
        "0042_some_name.sql",
        "-- title: a title: with a colon\n-- modes: fresh, attach\n-- requires: superuser, roles\n"
        "-- ensures: roles\n-- essential: yes\n-- without: nothing works\n-- remedy: do this\n"
        "\n-- title: not the header any more\nselect 1;\n",
    )
    assert migration.label == "0042_some_name"
    assert migration.title == "a title: with a colon"
    assert migration.modes == frozenset(MigrationMode)
    assert migration.requires == ("superuser", "roles")
    assert (migration.ensures, migration.is_essential) == ("roles", True)
    assert (migration.without, migration.remedy) == ("nothing works", "do this")


@pytest.mark.parametrize("name", ["1_a.sql", "0001-a.sql", "0001_A.sql", "0001_a.txt", "a.sql"])
def test_a_file_of_another_name_is_refused(name):
    with pytest.raises(LocalProtocolError, match="NNNN_name"):
        read_migration(name, HEADER)


def test_a_header_that_lacks_something_is_refused():
    with pytest.raises(LocalProtocolError, match="lacks modes, without"):
        read_migration("0001_a.sql", "-- title: x\nselect 1;")


def test_a_change_of_the_text_changes_the_checksum():
    before = read_migration("0001_a.sql", HEADER + "select 1;")
    after = read_migration("0001_a.sql", HEADER + "select 2;")
    assert before.checksum != after.checksum


def test_all_files_are_numbered_without_a_gap_and_need_only_rights_that_we_know():
    migrations = load_migrations()
    assert [migration.version for migration in migrations] == list(range(1, len(migrations) + 1))
    nobody = rights()
    for migration in migrations:
        for requirement in migration.requires:
            reason = nobody.lacks(requirement)
            assert reason is None or "unknown" not in reason
        assert migration.text.isascii() or migration.action is not None


def test_an_attached_project_gets_no_roles_no_triggers_and_no_auth_schema():
    text = print_sql(MigrationMode.ATTACH)
    for foreign in ("create role", "create event trigger", "schema auth", "create table auth"):
        assert foreign not in text.lower()
    assert {migration.version for migration in migrations_of(MigrationMode.ATTACH)} == {1, 10, 11}


def rights(**changes):
    plain = {
        "user_name": "u",
        "database_name": "d",
        "version": 160000,
        "is_superuser": False,
        "has_createrole": False,
        "has_bypassrls": False,
        "may_replicate": False,
        "may_create": False,
        "roles": {},
    }
    return DatabaseRights(**{**plain, **changes})


def role(**changes):
    plain = {
        "is_superuser": False,
        "has_bypassrls": False,
        "may_be_granted": False,
        "authenticator_is_member": False,
    }
    return RoleRights(**{**plain, **changes})


@pytest.mark.parametrize(
    ("mine", "lacks"),
    [
        (rights(is_superuser=True), None),
        (rights(roles={"service_role": role(has_bypassrls=True)}), None),
        (rights(has_createrole=True, has_bypassrls=True), None),
        (rights(has_createrole=True), "no BYPASSRLS to give"),
        (rights(has_createrole=True, has_bypassrls=True, version=150000), "only superusers"),
        (
            rights(has_createrole=True, has_bypassrls=True, roles={"service_role": role()}),
            "no ADMIN OPTION",
        ),
    ],
)
def test_who_may_give_bypassrls_depends_on_the_version(mine, lacks):
    reason = mine.lacks("grant_bypassrls")
    assert reason is None if lacks is None else lacks in reason


def test_a_requirement_and_a_state_that_nobody_knows():
    assert "unknown" in rights().lacks("levitation")
    assert rights().holds("anything else")
