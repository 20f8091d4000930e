"""The limit of open files, which every socket counts against.

At the limit no connection can be accepted, and none to the database opened either: a client that
opens sockets without end would stop the reader and the judge. So sockets are only taken while
`OPEN_FILES_RESERVED` files are left for everything else.
"""

import contextlib
import resource

import structlog

from heliograph.limits import OPEN_FILES_RESERVED

_log = structlog.get_logger("heliograph.server")


def fit_connections(wanted: int) -> int:
    """Return how many sockets may be open at once.

    Raises the soft limit of this process as far as that needs and the hard limit allows; what
    still does not fit is left out, with a warning in the log.

    Args:
        wanted: ``HELIOGRAPH_CONNECTIONS_MAX``.
    """
    needed = wanted + OPEN_FILES_RESERVED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    fitting = max(1, soft - OPEN_FILES_RESERVED)
    _log.warning(
        "too_few_open_files",
        connections=fitting,
        wanted=wanted,
        open_files=soft,
        remedy="raise the limit of open files (ulimit -n, LimitNOFILE), or lower"
        " HELIOGRAPH_CONNECTIONS_MAX",
    )
    return fitting
