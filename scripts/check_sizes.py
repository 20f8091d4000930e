"""Hold the sizes of what users install against their ceilings, and try the base install.

Usage: ``python scripts/check_sizes.py``

1. The wheel is built from this tree; it and its unpacked content stay below their ceilings.
2. The base install (our code and msgspec, nothing else) is put into an empty folder, and a Python
   that sees only that folder and the standard library imports the core. So the client side never
   comes to need a server's dependency.
3. The closures of the extras stay below their ceilings (files of the installed distributions,
   without byte code).
"""

import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Final

from check_licences import ROOT, closure

MIB: Final = 1024 * 1024

#: The wheel. Code and SQL only, about 0.2 MiB at first; data files that creep in show up here.
WHEEL_BYTES_MAX: Final = 1 * MIB

#: Our code on disk beside msgspec (0.5 MiB). A command-line tool that only reads live rows, or a
#: function in the cloud, should not notice the client library among its dependencies.
BASE_BYTES_OVER_MSGSPEC_MAX: Final = 4 * MIB

#: The extra `server`: 64 MiB in November 2026, of which cryptography 14, uvloop 13 and libpq 10.
#: The reserve is for their growth between two versions, not for another dependency.
SERVER_BYTES_MAX: Final = 80 * MIB

#: The extra `embedded`: PostgreSQL's own programs add 36 MiB.
EMBEDDED_BYTES_MAX: Final = 125 * MIB

#: Imports every module that the base install promises, in an interpreter that has nothing else.
#: Verifying tokens is the server's work and needs its cryptography.
TRY_BASE_INSTALL: Final = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import heliograph, heliograph.errors, heliograph.limits
import heliograph.core, heliograph.ports
for package in (heliograph.core, heliograph.ports):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.startswith("heliograph.core.tokens."):
            importlib.import_module(module.name)
print(sum(name.startswith("heliograph") for name in sys.modules))
"""


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this tree with the installed hatchling and return its path."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([*command, *options], check=True)
    return next(folder.glob("heliograph-*.whl"))


def distribution_bytes(name: str) -> int:
    """Return the bytes of an installed distribution's files, without byte code."""
    files = metadata.distribution(name).files or []
    paths = [Path(str(file.locate())) for file in files if file.suffix != ".pyc"]
    return sum(path.stat().st_size for path in paths if path.is_file())


def lay_out_base_install(wheel: Path, folder: Path) -> int:
    """Unpack the wheel and copy msgspec beside it.

    Returns:
        Bytes of our own part.
    """
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    own_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    for file in metadata.distribution("msgspec").files or []:
        source = Path(str(file.locate()))
        if file.parts[0] == ".." or not source.is_file():
            continue
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    return own_bytes


def try_base_install(folder: Path) -> str | None:
    """Import the core without any other dependency; return the error text or None."""
    # -I and -S: neither the environment's packages nor the current folder can be imported.
    command = [sys.executable, "-I", "-S", "-B", "-c", TRY_BASE_INSTALL, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip()


def main() -> int:
    """Print each size beside its ceiling; return 1 if one is exceeded or the import fails."""
    with tempfile.TemporaryDirectory() as name:
        wheel = build_wheel(Path(name))
        wheel_bytes = wheel.stat().st_size
        base = Path(name) / "base"
        base.mkdir()
        own_bytes = lay_out_base_install(wheel, base)
        import_error = try_base_install(base)
    rows = [
        ("wheel", wheel_bytes, WHEEL_BYTES_MAX),
        ("base over msgspec", own_bytes, BASE_BYTES_OVER_MSGSPEC_MAX),
    ]
    for extra, ceiling in (("server", SERVER_BYTES_MAX), ("embedded", EMBEDDED_BYTES_MAX)):
        rows.append((f"extra {extra}", sum(map(distribution_bytes, closure([extra]))), ceiling))
    for what, size, ceiling in rows:
        verdict = "ok" if size <= ceiling else "TOO LARGE"
        print(f"size: {what:18} {size / MIB:7.2f} MiB of {ceiling / MIB:4.0f}  {verdict}")
    if import_error is not None:
        print(f"the base install does not import:\n{import_error}", file=sys.stderr)
    is_good = import_error is None and all(size <= ceiling for _, size, ceiling in rows)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
