"""House rules that no linter knows, as tests.

Each rule is a function from text to complaints, so that `test_each_rule_catches_its_fault` can
show it a faulty example, and a test that runs it over the repository. A complaint names the file,
the line and what to do.
"""

import ast
import functools
import os
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from heliograph import errors, limits

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCE: Final = ROOT / "src" / "heliograph"
CORE: Final = SOURCE / "core"

FUNCTION_LINES_MAX: Final = 70
MODULE_LINES_MAX: Final = 500
FILE_BYTES_MAX: Final = 500_000

#: Folders that hold what tools made, not what people wrote.
_MADE: Final = {
    *(".git", ".venv", "__pycache__", "build", "dist", "heliograph-data", "htmlcov"),
    *(".hypothesis", ".import_linter_cache", ".mypy_cache", ".pytest_cache", ".ruff_cache"),
    *("node_modules", "results"),
}
_TEXT_SUFFIXES: Final = {".py", ".md", ".toml", ".txt", ".sql", ".json", ".mjs", ".js", ".sh", ".c"}
_TEXT_NAMES: Final = {"Makefile", "run", ".gitignore", ".npmrc"}

#: Words that name nothing. Most significant word of what the thing is, instead.
_EMPTY_WORDS: Final = {"util", "utils", "helper", "helpers", "manager", "misc", "handler2", "stuff"}
_EMPTY_MODULES: Final = _EMPTY_WORDS | {"common", "data", "info", "tools", "base", "core_utils"}

# In two pieces, so that this file does not break its own rule.
_REGISTRY_HOSTS: Final = [
    name + "." + domain
    for name, domain in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("golang", "org/x"),
        ("proxy.golang", "org"),
        ("deb.debian", "org"),
        ("anaconda", "org"),
    ]
]
_MACHINE_PATH: Final = re.compile(r"(?<![\w./-])/(work|home/\w+|opt/wheels|root/\.|Users/\w+)/")
#: What real keys look like. Those of tests are shorter, those of a demo are made when it starts.
_REAL_SECRETS: Final = {
    "a signed token": r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{43,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a key of a project": r"\bsb_(secret|publishable)_[\w-]{22,}",
    "a key of a cloud": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{35}\b",
    "a key of a service": r"\b(gh[pousr]_|github_pat_|glpat-|pypi-|npm_|sk-|xox[abpr]-)[\w-]{30,}",
    "a random secret of 32 bytes": (
        r"(?<!sha256)[=:\"'\s]([0-9a-f]{64}|[A-Za-z0-9+/]{43}=)([\"'\s]|$)"
    ),
}
_UNFINISHED: Final = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b(?! ?\(?#\d+)")
_SUPPRESSION: Final = re.compile(
    r"#\s*(noqa: [A-Z]+[0-9]+(, ?[A-Z]+[0-9]+)*|(type|pyright): ignore\[[\w, -]+\])(?P<reason>.*)"
)
_LINK: Final = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s#]+)(#[^)]*)?\)")


# --- the repository -------------------------------------------------------------------------


@functools.cache
def repository_files() -> tuple[Path, ...]:
    """Return every file that people wrote."""
    found: list[Path] = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in _MADE]
        found += [Path(folder, name) for name in names if not name.startswith(".coverage")]
    return tuple(sorted(found))


def text_files() -> list[Path]:
    return [
        path
        for path in repository_files()
        if path.suffix in _TEXT_SUFFIXES or path.name in _TEXT_NAMES
    ]


def python_files(*folders: str) -> list[Path]:
    return [
        path
        for path in repository_files()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders
    ]


def complaints_about(files: list[Path], rule: Callable[[str], Iterator[str]]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{complaint}"
        for path in files
        for complaint in rule(path.read_text(encoding="utf-8"))
    ]


def assert_clean(complaints: list[str]) -> None:
    assert not complaints, "\n" + "\n".join(complaints)


def functions_of(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


# --- the rules: text -> complaints ----------------------------------------------------------


def long_functions(source: str) -> Iterator[str]:
    for function in functions_of(ast.parse(source)):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            most = FUNCTION_LINES_MAX
            yield f"{function.lineno}: {function.name} has {lines} lines, {most} at most"


def long_modules(source: str) -> Iterator[str]:
    lines = len(source.splitlines())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    is_list = not any(isinstance(node, kinds) for node in ast.walk(ast.parse(source)))
    if lines > MODULE_LINES_MAX and not is_list:
        yield f"1: {lines} lines, {MODULE_LINES_MAX} at most; split it by concept"


def empty_names(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        words = {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", node.name)}
        if words & _EMPTY_WORDS or node.name in {"process", "do"} or node.name.startswith("do_"):
            yield f"{node.lineno}: the name {node.name} says nothing; name what it is or does"


def sleeping(source: str) -> Iterator[str]:
    """A test waits for a condition: only functions named wait_… may sleep between two looks.

    Such a function has a loop with the sleep in it, and a deadline.
    """
    tree = ast.parse(source)
    waiting = [
        (loop.lineno, loop.end_lineno or 0)
        for function in functions_of(tree)
        if function.name.lstrip("_").startswith("wait") and has_deadline(function)
        for loop in ast.walk(function)
        if isinstance(loop, ast.While | ast.For | ast.AsyncFor)
    ]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or ast.unparse(node.func).split(".")[-1] != "sleep":
            continue
        if [ast.unparse(argument) for argument in node.args] == ["0"]:
            continue
        if not any(first <= node.lineno <= last for first, last in waiting):
            yield f"{node.lineno}: sleeps; wait for a condition with a deadline (wait_…)"


def has_deadline(function: ast.AST) -> bool:
    """Tell whether a function names something a deadline or a timeout."""
    names = [
        getattr(node, "id", "") or getattr(node, "attr", "") or getattr(node, "arg", "") or ""
        for node in ast.walk(function)
    ]
    return any(word in name.lower() for name in names for word in ("deadline", "timeout"))


def unfinished(text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        if _UNFINISHED.search(line):
            yield f"{number}: unfinished work without an issue number: {line.strip()[:80]}"


def registry_hosts(text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        if any(host in line for host in _REGISTRY_HOSTS):
            yield f"{number}: names a package registry's host"


def machine_paths(text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        if found := _MACHINE_PATH.search(line):
            yield f"{number}: names a path of one machine: {found[0]}"


def real_secrets(text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        for what, pattern in _REAL_SECRETS.items():
            if re.search(pattern, line):
                yield f"{number}: looks like {what}; real ones are made where they are needed"


def bare_suppressions(source: str) -> Iterator[str]:
    for number, line in enumerate(source.splitlines(), start=1):
        found = _SUPPRESSION.search(line)
        if found and len(found["reason"].strip(" #-:")) < 8:
            yield f"{number}: a suppressed warning without its reason in the same line"


def misplaced_errors(source: str) -> Iterator[str]:
    known = {name for name, value in vars(errors).items() if isinstance(value, type)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and known & {ast.unparse(base) for base in node.bases}:
            yield f"{node.lineno}: the error {node.name} belongs into errors.py"


def needs_unit_test(source: str) -> bool:
    """Tell whether a module has a function that does something: more than contracts and data."""
    for function in functions_of(ast.parse(source)):
        body = [
            statement
            for statement in function.body
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        ]
        if body:
            return True
    return False


def broken_links(path: Path) -> Iterator[str]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        for link in _LINK.finditer(line):
            target = link["target"]
            if "://" in target or target.startswith("mailto:"):
                continue
            if not (path.parent / target).exists():
                yield f"{path.relative_to(ROOT)}:{number}: link to {target}, which is not there"


# --- the rules can fail ---------------------------------------------------------------------

_FAULTS: Final = [
    (long_functions, "def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX),
    (long_modules, "def f(): ...\n" + "x = 1\n" * MODULE_LINES_MAX),
    (empty_names, "class ConnectionManager: ..."),
    (empty_names, "def do_it(): ..."),
    (sleeping, "import time\ndef test_x():\n    time.sleep(0.1)"),
    (sleeping, "async def test_x():\n    await asyncio.sleep(0.1)"),
    (sleeping, "async def wait_a_little(timeout_s):\n    await asyncio.sleep(0.01)"),
    (sleeping, "def wait_ready():\n    while True:\n        time.sleep(0.01)"),
    (unfinished, "x = 1  # TO" + "DO: finish"),
    (registry_hosts, "https://" + _REGISTRY_HOSTS[0] + "/simple"),
    (machine_paths, "see /wo" + "rk/main/file"),
    (real_secrets, "token = 'eyJhbGciOiJI.eyJyb2xlIjoi." + "x" * 43 + "'"),
    (real_secrets, "-----BEGIN RSA PRIV" + "ATE KEY-----"),
    (real_secrets, "key: sb_sec" + "ret_" + "Ab1_" * 6),
    (real_secrets, "AWS = AKIA" + "ABCDEFGH" * 2),
    (real_secrets, "ghp_" + "a1B2c3" * 6),
    (real_secrets, f"SECRET={'0af9' * 16}"),
    (bare_suppressions, "x = 1  # no" + "qa: E501"),
    (bare_suppressions, "x = 1  # type" + ": ignore[attr-defined]"),
    (misplaced_errors, "class MyError(StorageError): ..."),
]


@pytest.mark.parametrize(
    ("rule", "faulty"), _FAULTS, ids=[f"{rule.__name__}-{n}" for n, (rule, _) in enumerate(_FAULTS)]
)
def test_each_rule_catches_its_fault(rule: Callable[[str], Iterator[str]], faulty: str) -> None:
    assert list(rule(faulty))


def test_a_condition_may_be_waited_for_with_a_pause() -> None:
    waiting = "def wait_ready(deadline_s):\n    while not ready():\n        time.sleep(0.01)"
    assert not list(sleeping(waiting))
    assert not list(sleeping("async def test_x():\n    await asyncio.sleep(0)"))


# --- the repository keeps the rules ---------------------------------------------------------


def test_functions_are_short() -> None:
    files = python_files("src", "tests", "scripts", "benchmarks")
    assert_clean(complaints_about(files, long_functions))


def test_modules_are_short() -> None:
    files = python_files("src", "tests", "scripts", "benchmarks")
    assert_clean(complaints_about(files, long_modules))


def test_names_say_what_they_name() -> None:
    files = python_files("src", "scripts", "benchmarks")
    modules = [
        f"{path.relative_to(ROOT)}:1: the module name says nothing"
        for path in files
        if path.stem in _EMPTY_MODULES
    ]
    assert_clean(modules + complaints_about(files, empty_names))


def test_tests_do_not_sleep() -> None:
    assert_clean(complaints_about(python_files("tests"), sleeping))


def test_unfinished_work_has_an_issue_number() -> None:
    assert_clean(complaints_about(text_files(), unfinished))


def test_no_file_names_a_package_registry() -> None:
    assert_clean(complaints_about(text_files(), registry_hosts))


def test_no_file_names_a_path_of_one_machine() -> None:
    assert_clean(complaints_about(text_files(), machine_paths))


@pytest.mark.security
def test_no_file_holds_a_real_secret() -> None:
    """S8: whoever reads the repository learns no key that opens anything."""
    assert_clean(
        [
            f"{path.relative_to(ROOT)}:{complaint}"
            for path in repository_files()
            if path.name != ".env"
            for complaint in real_secrets(path.read_text(encoding="utf-8", errors="replace"))
        ]
    )


def test_suppressed_warnings_have_their_reason() -> None:
    assert_clean(complaints_about(python_files("src", "scripts"), bare_suppressions))


def test_every_error_class_is_in_errors_py() -> None:
    files = [path for path in python_files("src") if path.name != "errors.py"]
    assert_clean(complaints_about(files, misplaced_errors))


def test_every_core_module_has_its_unit_test() -> None:
    tests = ROOT / "tests" / "unit" / "core"
    assert_clean(
        [
            f"{module.relative_to(ROOT)}: {test.relative_to(ROOT)} is missing"
            for module in python_files("src")
            if module.is_relative_to(CORE) and needs_unit_test(module.read_text(encoding="utf-8"))
            for test in [tests / module.relative_to(CORE).parent / f"test_{module.stem}.py"]
            if not test.exists()
        ]
    )


def test_every_package_has_a_readme() -> None:
    packages = [path.parent for path in SOURCE.rglob("__init__.py") if path.parent != SOURCE]
    wanted = [*packages, ROOT / "tests", ROOT / "benchmarks", ROOT / "docs" / "decisions"]
    assert_clean(
        [
            f"{folder.relative_to(ROOT)}/README.md is missing or says nothing"
            for folder in wanted
            if not (folder / "README.md").exists()
            or len((folder / "README.md").read_text(encoding="utf-8").split()) < 20
        ]
    )


def test_every_error_code_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    codes = [
        code
        for code, error in errors.error_classes().items()
        if error.__module__ == errors.__name__
    ]
    assert_clean([code for code in codes if f"| `{code}` |" not in page])


def test_every_limit_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "limits.md").read_text(encoding="utf-8")
    assert_clean([name for name in vars(limits) if name.isupper() and f"`{name}` =" not in page])


def test_links_between_pages_lead_somewhere() -> None:
    pages = [path for path in text_files() if path.suffix == ".md"]
    assert_clean([complaint for page in pages for complaint in broken_links(page)])


def test_files_named_in_the_architecture_exist() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w./]+\.(?:py|sql|md))`", page))
    assert len(named) > 10, "the page names files as `core/wire/json_codec.py`"
    assert_clean(
        [name for name in sorted(named) if not any((at / name).exists() for at in (ROOT, SOURCE))]
    )


def test_no_large_file() -> None:
    assert_clean(
        [
            f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes"
            for path in repository_files()
            if path.stat().st_size > FILE_BYTES_MAX
        ]
    )


# --- requirements ---------------------------------------------------------------------------

#: Pins that differ between runtime.txt and dev.txt, and why.
_DIFFERS_IN_DEV: Final = {"websockets": "the official Python client accepts only versions below 16"}


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    pinned = [line.split(" ; ")[0] for line in lines if line and not line.startswith("#")]
    found = [line.split("==") for line in pinned]
    assert all(len(parts) == 2 and re.fullmatch(r"[\w.]+", parts[1]) for parts in found), found
    assert [parts[0] for parts in found] == sorted(parts[0] for parts in found)
    return {canonicalize_name(parts[0]): parts[1] for parts in found}


def test_development_pins_repeat_the_runtime_pins() -> None:
    development = pins("dev.txt")
    differing = {
        name for name, version in pins("runtime.txt").items() if development.get(name) != version
    }
    assert differing == set(_DIFFERS_IN_DEV)


def test_pins_of_the_build_tools_agree_with_the_development_pins() -> None:
    development = pins("dev.txt")
    assert_clean(
        [
            name
            for name, version in pins("build.txt").items()
            if development.get(name, version) != version
        ]
    )


@pytest.mark.parametrize(("extra", "file"), [("embedded", "runtime.txt"), ("dev", "dev.txt")])
def test_pins_lie_in_the_ranges_of_pyproject(extra: str, file: str) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["server"], *extras["embedded"]]
    needed += extras[extra] if extra == "dev" else []
    pinned = pins(file)
    ranges = [Requirement(text) for text in needed if not text.startswith("heliograph[")]
    assert_clean(
        [
            f"{file}: {wanted} is not met by {pinned.get(canonicalize_name(wanted.name))}"
            for wanted in ranges
            if not wanted.specifier.contains(pinned.get(canonicalize_name(wanted.name), "0"))
        ]
    )


def test_every_dependency_has_its_line_among_the_decisions() -> None:
    import json
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = {Requirement(text).name for text in needed} - {project["name"]}
    package = json.loads((ROOT / "interop" / "package.json").read_text(encoding="utf-8"))
    names |= set(package["devDependencies"])
    page = ROOT / "docs" / "decisions" / "0041-dependencies-in-one-table.md"
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    named = {name for line in lines for name in re.findall(r"`([^`]+)`", line.split("|")[1])}
    assert named == names
