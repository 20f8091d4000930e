"""The main process of a PostgreSQL cluster, as its ``postmaster.pid`` and the system show it.

A process id alone proves nothing: after a crash another program may own the number. Where the
system has ``/proc`` a process counts as serving a cluster only if its working folder is that
cluster's data directory, which every PostgreSQL process keeps for its whole life.

Source: PostgreSQL documentation, "Database File Layout" (postmaster.pid), and pidfile.h.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")

#: Lines of postmaster.pid, counted from 0; the status is the last one written at start.
_PID_LINE, _PORT_LINE, _STATUS_LINE = 0, 3, 7


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What ``postmaster.pid`` says.

    Attributes:
        pid: Process id of the main process.
        port: TCP port it listens on; 0 while it has not written it yet.
        status: ``starting``, ``ready``, ``standby``, ``stopping``; empty while not yet written.
    """

    pid: int
    port: int
    status: str

    @property
    def is_ready(self) -> bool:
        """Return whether it accepts connections."""
        return self.status == "ready"


def pid_file(data_dir: Path) -> Path:
    """Return the path of the cluster's ``postmaster.pid``."""
    return data_dir / "postmaster.pid"


def read_postmaster(data_dir: Path) -> Postmaster | None:
    """Return what ``postmaster.pid`` says, or None if it is absent or not yet readable as one."""
    try:
        lines = pid_file(data_dir).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    if not lines or not lines[_PID_LINE].strip().isdigit():
        return None

    def line(index: int) -> str:
        return lines[index].strip() if index < len(lines) else ""

    port = line(_PORT_LINE)
    return Postmaster(
        pid=int(lines[_PID_LINE]),
        port=int(port) if port.isdigit() else 0,
        status=line(_STATUS_LINE),
    )


def serves_cluster(pid: int, data_dir: Path) -> bool:
    """Return whether process `pid` lives and belongs to the cluster in `data_dir`."""
    if not _PROC.is_dir():
        return _is_alive(pid)
    try:
        return (_PROC / str(pid) / "cwd").readlink() == data_dir.resolve()
    except OSError:  # gone, a zombie, or somebody else's: in no case ours
        return False


def cluster_processes(data_dir: Path) -> list[int]:
    """Return the ids of all living processes of the cluster; empty where there is no ``/proc``."""
    if not _PROC.is_dir():
        return []
    pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    return [pid for pid in sorted(pids) if serves_cluster(pid, data_dir)]


def live_postmaster(data_dir: Path) -> Postmaster | None:
    """Return the main process that serves the cluster now, or None."""
    postmaster = read_postmaster(data_dir)
    if postmaster is None or not serves_cluster(postmaster.pid, data_dir):
        return None
    return postmaster


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
