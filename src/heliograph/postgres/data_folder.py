"""Heliograph's data folder: the embedded cluster, its secrets and the lock that guards both.

Layout::

    lock            held with flock by the one process that uses the folder; contains its id
    secrets.json    mode 0600: passwords and keys of this folder, and the TCP port last used
    postgres/       the cluster (PGDATA)
    postgres.log    PostgreSQL's log; postgres.log.1 is the one before
    binaries/       copied programs, only where an unprivileged account can not read the wheel's

Invariants: one process at a time; a folder that holds something else is never taken over; a
secrets file is complete or absent.
"""

import fcntl
import os
import pwd
import secrets
import unicodedata
from pathlib import Path
from typing import Final

import msgspec

from heliograph.config import DevelopmentSecrets, Secret
from heliograph.errors import ConfigurationError
from heliograph.limits import POSTGRES_LOG_BYTES_MAX

_LOCK_NAME: Final = "lock"
_SECRETS_NAME: Final = "secrets.json"

#: Control characters, separators of lines and paragraphs, and what stands for bytes that are no
#: text: PostgreSQL keeps the path in files of lines. Spaces of every kind, and the invisible
#: joiners of some scripts, are in names that people give.
_UNFIT_CATEGORIES: Final = frozenset({"Cc", "Zl", "Zp", "Cs"})


class FolderSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``secrets.json``.

    Attributes:
        postgres_password: Of the superuser `postgres`.
        jwt_secret: Signs the tokens of ``heliograph dev``.
        publishable_key: `sb_publishable_…`.
        secret_key: `sb_secret_…`.
        port: TCP port that PostgreSQL had last; None before the first start.
    """

    postgres_password: str
    jwt_secret: str
    publishable_key: str
    secret_key: str
    port: int | None = None

    def __repr__(self) -> str:
        """Return a fixed word: every field but one is a secret."""
        return "FolderSecrets(hidden)"

    def for_development(self, database_url: Secret | None) -> DevelopmentSecrets:
        """Return what `Settings.for_dev` fills in."""
        return DevelopmentSecrets(
            database_url=database_url,
            jwt_secret=Secret(self.jwt_secret),
            publishable_key=Secret(self.publishable_key),
            secret_key=Secret(self.secret_key),
        )


class DataFolder:
    """An open, locked data folder. Make it with `open`; `close` releases the lock."""

    def __init__(self, path: Path, lock_descriptor: int) -> None:
        """Keep an acquired lock; use `open` instead."""
        self.path = path
        self._lock_descriptor: int | None = lock_descriptor

    @classmethod
    def open(cls, path: Path) -> "DataFolder":
        """Make the folder if it is absent, and lock it.

        Raises:
            ConfigurationError: If another process uses it (the message names its id), if it holds
                something that is not ours, or if we may not write to it.
        """
        path = path.absolute()
        if any(unicodedata.category(character) in _UNFIT_CATEGORIES for character in str(path)):
            message = (
                f"data folder {str(path)!r}: its name has control characters or bytes that are no"
                " UTF-8; choose another"
            )
            raise ConfigurationError(message)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock_path = path / _LOCK_NAME
            if not lock_path.exists() and any(path.iterdir()):
                message = f"{path} is not empty and no data folder of Heliograph; choose another"
                raise ConfigurationError(message)
            descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            message = f"data folder {path} can not be used: {error.strerror}"
            raise ConfigurationError(message) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            message = (
                f"data folder {path} is in use by another Heliograph (process {holder}); stop it,"
                " or choose another folder"
            )
            raise ConfigurationError(message) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return cls(path, descriptor)

    def require_same_user(self) -> None:
        """Refuse, as root, the folder of an ordinary user before anything in it is changed.

        The files would become root's, and that user could not start its own cluster any more.

        Raises:
            ConfigurationError: If another user than root made folder and cluster.
        """
        owner = self.path.stat().st_uid
        if os.geteuid() != 0 or owner == 0 or not self.cluster_dir.exists():
            return
        # Root's own cluster may be run by another account; then the folder around it is root's.
        if self.cluster_dir.stat().st_uid == owner:
            message = (
                f"data folder {self.path} was made by user {_user_name(owner)}; run Heliograph as"
                " that user, or choose another folder"
            )
            raise ConfigurationError(message)

    @property
    def cluster_dir(self) -> Path:
        """Return the cluster's data directory (PGDATA)."""
        return self.path / "postgres"

    @property
    def log_path(self) -> Path:
        """Return PostgreSQL's log file."""
        return self.path / "postgres.log"

    @property
    def binaries_dir(self) -> Path:
        """Return the folder for copied programs."""
        return self.path / "binaries"

    def close(self) -> None:
        """Release the lock. Stop what uses the folder first."""
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def load_secrets(self) -> FolderSecrets:
        """Return the folder's secrets; the first call makes them.

        Raises:
            ConfigurationError: If the file is damaged, or missing although the cluster exists (its
                password would be unknown).
        """
        path = self.path / _SECRETS_NAME
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            if self.cluster_dir.exists():
                message = (
                    f"{path} is missing, and with it the password of the cluster beside it."
                    " Restore the file, or move the whole folder away to begin anew."
                )
                raise ConfigurationError(message) from error
            made = FolderSecrets(
                postgres_password=secrets.token_urlsafe(24),
                jwt_secret=secrets.token_urlsafe(48),
                publishable_key=f"sb_publishable_{secrets.token_urlsafe(24)}",
                secret_key=f"sb_secret_{secrets.token_urlsafe(24)}",
            )
            self._save_secrets(made)
            return made
        try:
            return msgspec.json.decode(content, type=FolderSecrets)
        except msgspec.MsgspecError as error:
            # The decoder's text may hold a piece of the file; it is not repeated.
            message = f"{path} is damaged; restore it, or move the whole folder away"
            raise ConfigurationError(message) from error

    def cluster_major(self) -> int | None:
        """Return the major version that made the cluster; None if there is no cluster yet."""
        try:
            text = (self.cluster_dir / "PG_VERSION").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        if not text.isdigit():
            message = f"{self.cluster_dir / 'PG_VERSION'} is damaged"
            raise ConfigurationError(message)
        return int(text)

    def remember_port(self, port: int) -> None:
        """Keep the TCP port for the next start."""
        known = self.load_secrets()
        if known.port != port:
            self._save_secrets(msgspec.structs.replace(known, port=port))

    def let_pass(self) -> None:
        """Let other accounts pass through the folder, not list it (mode 0711)."""
        self.path.chmod(0o711)

    def rotate_log(self) -> None:
        """Put a log that has grown too large aside; the one put aside before is lost."""
        if self.log_path.exists() and self.log_path.stat().st_size > POSTGRES_LOG_BYTES_MAX:
            self.log_path.replace(self.log_path.with_name(f"{self.log_path.name}.1"))

    def _save_secrets(self, content: FolderSecrets) -> None:
        path = self.path / _SECRETS_NAME
        unfinished = path.with_name(f"{path.name}.unfinished")
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(content)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)


def read_folder_secrets(path: Path) -> FolderSecrets | None:
    """Return the secrets of a data folder that somebody else may be using; None if there are none.

    Raises:
        ConfigurationError: If the file can not be read, or is damaged.
    """
    secrets_path = path / _SECRETS_NAME
    try:
        return msgspec.json.decode(secrets_path.read_bytes(), type=FolderSecrets)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        message = f"{secrets_path} can not be read: {error.strerror}"
        raise ConfigurationError(message) from error
    except msgspec.MsgspecError as error:
        message = f"{secrets_path} is damaged"
        raise ConfigurationError(message) from error


def _user_name(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)
