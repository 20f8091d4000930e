"""What every test may use: hypothesis profiles and PostgreSQL clusters (tests/fixtures)."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

from fixtures.ci import is_ci

pytest_plugins = ["fixtures.postgres", "fixtures.server"]

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile(
    "ci",
    max_examples=300,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("nightly", max_examples=20_000, deadline=None, print_blob=True)
_default_profile = "ci" if is_ci() else "dev"
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", _default_profile))

#: What a platform may be unable to have, by marker: such a test is not for it, no part is missing.
_AVAILABLE = {
    "needs_root": os.geteuid() == 0,
    # Wheels of atheris exist up to Python 3.13.
    "needs_atheris": sys.version_info < (3, 14),
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that are not for this platform."""
    missing = {marker for marker, is_here in _AVAILABLE.items() if not is_here}
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in missing)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
