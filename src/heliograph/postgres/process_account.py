"""Which operating-system account PostgreSQL runs as. It refuses to run as root.

Three ways, in this order:

* we are an ordinary user: PostgreSQL runs as we do;
* we are root and user namespaces work: ``unshare --user`` maps us to an unprivileged id for
  PostgreSQL's eyes only; its files stay ours, no account is needed, a folder of mode 0700 works;
* we are root and user namespaces are forbidden (some container profiles): an account that exists
  already (`nobody`), which then owns the cluster's folder and nothing else.

No account is ever created, and no permission outside our own data folder is ever changed.
"""

import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from heliograph.errors import ConfigurationError

#: The account used where user namespaces are forbidden; it exists on every Linux system.
FALLBACK_ACCOUNT: Final = "nobody"

#: The id that the namespace shows to PostgreSQL: the kernel's "nobody".
_MAPPED_ID: Final = 65534

#: Variables that PostgreSQL may inherit; ours hold secrets, which are not its business.
_INHERITED_VARIABLES: Final = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")

#: Seconds that a trial run of a program under the account may take.
_TRIAL_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessAccount:
    """How a PostgreSQL program is started.

    Attributes:
        description: For messages: ``this user``, ``user namespace`` or ``account nobody``.
        command_prefix: Words put before the program.
        user_id: Account to switch to before the program starts; None keeps ours.
        group_id: Its group.
    """

    description: str
    command_prefix: tuple[str, ...] = ()
    user_id: int | None = None
    group_id: int | None = None

    def run(
        self, program: Path, *arguments: str, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run `program` to its end and return what it said.

        Raises:
            OSError: If it can not be started.
            subprocess.TimeoutExpired: If it takes longer than `timeout_s`; it is killed.
        """
        return subprocess.run(  # noqa: S603 - a program we located, no shell, no outside text
            [*self.command_prefix, str(program), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            cwd="/",
            env=_environment(),
            user=self.user_id,
            group=self.group_id,
            extra_groups=self._extra_groups(),
        )

    def spawn(self, program: Path, *arguments: str, log: BinaryIO) -> subprocess.Popen[bytes]:
        """Start `program` in a session of its own and return at once; `log` gets all it says.

        The session keeps Ctrl-C in our terminal from it: we stop it, in order.

        Raises:
            OSError: If it can not be started.
        """
        return subprocess.Popen(  # noqa: S603 - a program we located, no shell, no outside text
            [*self.command_prefix, str(program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_environment(),
            start_new_session=True,
            user=self.user_id,
            group=self.group_id,
            extra_groups=self._extra_groups(),
        )

    def own(self, path: Path) -> None:
        """Give a file or folder of ours to the account, if it is another one than us."""
        if self.user_id is not None and self.group_id is not None:
            os.chown(path, self.user_id, self.group_id)

    def can_run(self, program: Path) -> bool:
        """Return whether the account can read and run `program`; found out by a trial."""
        try:
            trial = self.run(program, "--version", timeout_s=_TRIAL_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return trial.returncode == 0

    def blocking_folder(self, path: Path) -> Path | None:
        """Return the topmost parent of `path` that the account may not pass through, or None."""
        if self.user_id is None:
            return None
        for folder in reversed(path.absolute().parents):
            status = folder.stat()
            if status.st_uid == self.user_id:
                allowed = status.st_mode & stat.S_IXUSR
            elif status.st_gid == self.group_id:
                allowed = status.st_mode & stat.S_IXGRP
            else:
                allowed = status.st_mode & stat.S_IXOTH
            if not allowed:
                return folder
        return None

    def _extra_groups(self) -> list[int] | None:
        return None if self.user_id is None else []


def choose_account() -> ProcessAccount:
    """Return how PostgreSQL is to be run by the present user on this machine.

    Raises:
        ConfigurationError: If we are root, user namespaces are forbidden, and there is no
            unprivileged account to use.
    """
    if os.geteuid() != 0:
        return ProcessAccount(description="this user")
    return namespace_account() or existing_account(FALLBACK_ACCOUNT)


def namespace_account() -> ProcessAccount | None:
    """Return the user-namespace way if a trial shows that it works here, else None."""
    unshare = shutil.which("unshare")
    true = shutil.which("true")
    if unshare is None or true is None:
        return None
    account = ProcessAccount(
        description="user namespace",
        command_prefix=(
            unshare,
            "--user",
            f"--map-user={_MAPPED_ID}",
            f"--map-group={_MAPPED_ID}",
        ),
    )
    return account if account.can_run(Path(true)) else None


def existing_account(name: str) -> ProcessAccount:
    """Return the way through an account that exists already.

    Raises:
        ConfigurationError: If there is no such account, or if it is root.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        message = (
            "PostgreSQL does not run as root, user namespaces are forbidden here and there is no"
            f" account {name!r} to use. Start Heliograph as an ordinary user."
        )
        raise ConfigurationError(message) from error
    if entry.pw_uid == 0:
        message = f"account {name!r} is root; PostgreSQL needs an unprivileged one"
        raise ConfigurationError(message)
    return ProcessAccount(
        description=f"account {name}", user_id=entry.pw_uid, group_id=entry.pw_gid
    )


def _environment() -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
    return {**inherited, "LC_ALL": "C"}
