"""What `import heliograph` promises, and what it must not drag in."""

import importlib
import inspect
import json
import subprocess
import sys

import pytest

#: Packages whose documented names are public; everything else may change in any version.
PUBLIC_PACKAGES = ("heliograph", "heliograph.testing")

#: Third-party packages that the base install has.
BASE_DEPENDENCIES = {"msgspec"}


def public_names(package: str) -> list[str]:
    return list(getattr(importlib.import_module(package), "__all__", []))


@pytest.mark.parametrize("package", PUBLIC_PACKAGES)
def test_every_listed_name_exists_and_is_documented(package: str) -> None:
    module = importlib.import_module(package)
    for name in public_names(package):
        exported = getattr(module, name)
        assert inspect.getdoc(exported), f"{package}.{name} has no docstring"


@pytest.mark.parametrize("package", PUBLIC_PACKAGES)
def test_every_public_name_is_listed(package: str) -> None:
    module = importlib.import_module(package)
    unlisted = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    } - set(public_names(package))
    assert not unlisted


def test_a_name_is_public_in_one_place_only() -> None:
    names = [name for package in PUBLIC_PACKAGES for name in public_names(package)]
    assert len(names) == len(set(names))


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
