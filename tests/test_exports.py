"""What applications may import, and what `import heliograph` must not drag in."""

import importlib
import inspect
import json
import subprocess
import sys
from functools import reduce

import pytest

#: What the pages tell applications to import, by module; everything else may change in any version.
PUBLIC = {
    "heliograph.mounting": {"MountedServer", "MountedServer.running"},
    "heliograph.config": {"Settings", "Settings.for_serve", "Settings.from_environ"},
    "heliograph.server.logging": {"configure_logging"},
}

#: Packages that export nothing yet.
EMPTY = ("heliograph", "heliograph.testing")

#: Third-party packages that the base install has.
BASE_DEPENDENCIES = {"msgspec"}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    names = PUBLIC[name]
    assert names
    assert {public for public in names if "." not in public} <= set(module.__all__)
    for public in names:
        exported = reduce(getattr, public.split("."), module)
        assert inspect.getdoc(exported), f"{name}.{public} has no docstring"


@pytest.mark.parametrize("name", PUBLIC)
def test_every_listed_name_exists(name: str) -> None:
    module = importlib.import_module(name)
    assert set(module.__all__) <= set(vars(module))


@pytest.mark.parametrize("package", EMPTY)
def test_a_package_without_public_names_has_none(package: str) -> None:
    module = importlib.import_module(package)
    names = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert not names


#: Runs what follows as if nothing but the base install were there.
WITHOUT_EXTRAS = """
import sys, importlib.abc
sys.argv[0] = "heliograph"
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


def without_extras(
    program: str, absent: tuple[str, ...] = ("typer", "starlette", "psycopg", "rich")
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"ABSENT = {absent!r}\n{WITHOUT_EXTRAS}{program}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_command_says_what_to_install_where_only_the_base_is() -> None:
    done = without_extras("from heliograph.__main__ import main; main()")
    assert done.returncode == 2
    assert "pip install 'heliograph[server]'" in done.stderr
    assert "Traceback" not in done.stderr


#: An application to be mounted in has Starlette already, and may have more of it.
@pytest.mark.parametrize("absent", [("starlette", "typer"), ("psycopg", "structlog"), ("picows",)])
def test_mounting_says_what_to_install_where_the_server_is_not(absent: tuple[str, ...]) -> None:
    done = without_extras("import heliograph.mounting", absent)
    last = done.stderr.splitlines()[-1]
    assert "heliograph.mounting needs the server" in last
    assert "pip install 'heliograph[server]'" in last


def test_mounting_hides_no_missing_module_of_ours() -> None:
    done = without_extras("import heliograph.mounting", ("heliograph.server.app",))
    assert done.returncode == 1
    assert "pip install" not in done.stderr


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "heliograph", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "Usage: python -m heliograph" in done.stdout


def test_importing_heliograph_needs_only_the_base_install() -> None:
    # In a process of its own: this one has imported the server's dependencies long ago.
    program = (
        "import sys, json; before = set(sys.modules)\n"
        "import heliograph\n"
        "roots = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(json.dumps(sorted(roots - set(sys.stdlib_module_names) - {'heliograph'})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert set(json.loads(done.stdout)) <= BASE_DEPENDENCIES
