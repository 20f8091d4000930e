"""The soak in short, so that it works when somebody has half an hour for it."""

from collections import Counter
from itertools import chain

import pytest

from soak import summary
from soak.run import Scale, run

pytestmark = [
    pytest.mark.fault,
    pytest.mark.interop,
    pytest.mark.postgres,
    pytest.mark.asyncio,
    # The package reads what websockets has deprecated.
    pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning"),
]

SCALE = Scale(
    seed=1, duration_s=0, rows_per_s=150, cuts_per_s=10, ring_transactions=200, clients=10
)

#: One list for each settled round.
SCRIPT = (
    ("membership", "walsender_ended", "server_killed", "policy", "postgres_killed"),
    ("truncate", "judges_ended", "slot_dropped", "publication_without_table", "server_ended"),
)


async def test_nothing_is_lost_whatever_is_broken(tmp_path):
    result = await run(SCALE, tmp_path, script=SCRIPT)
    counts = result.ledger.counts
    assert result.ledger.broken == [], summary.text(result)
    assert summary.counted(result.ledger, "fault ") == Counter(chain(*SCRIPT))
    assert counts["settled rounds"] == 1 + len(SCRIPT)
    assert counts["comparisons with SELECT"] == counts["settled rounds"] * result.clients
    assert summary.cuts(result.ledger) > 20
    assert counts["resumes asked for"] > 20
    assert counts["resync slot_recreated"] + counts["resync epoch_changed"] > 0
