"""Whether this is a run that must be complete."""

import os


def is_ci() -> bool:
    """Tell whether ``CI`` is set, to whatever but nothing, ``0`` and ``false``."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}
