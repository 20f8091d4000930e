"""Settled rounds: everything stands still, then each client's rows are what SELECT shows it."""

from fixtures.waiting import wait_until
from soak.ledger import LawBrokenError

#: Seconds until every client has followed the last commit, or the run is called stuck.
SETTLE_S = 150.0

#: Rows named in a report.
NAMED = 5


async def settle(world, rights, clients):
    """Hold everybody up, wait until all have followed, and compare."""
    ledger = world.ledger
    async with world.gate.closed():
        await rights.number_with("select 1")
        number = ledger.committed

        def behind():
            return [client for client in clients if not client.has_followed(number)]

        try:
            await wait_until(lambda: not behind(), deadline_s=SETTLE_S)
        except AssertionError:
            for client in behind():
                text = (
                    f"settled at commit {number}, after {SETTLE_S:g} s at {client.keeper.followed}"
                )
                ledger.break_law(client.plan.name, LawBrokenError("stuck", text))
        shown = {}
        for client in clients:
            if not client.has_followed(number):
                continue
            view = client.plan.view
            if view not in shown:
                shown[view], _ = await world.load(view)
            if difference := differences(client.keeper.rows, shown[view]):
                ledger.break_law(client.plan.name, LawBrokenError("silent_gap", difference))
            ledger.counts["comparisons with SELECT"] += 1
            ledger.counts["rows compared"] += sum(map(len, shown[view].values()))
        ledger.everybody_followed()
        ledger.counts["settled rounds"] += 1
        world.note_memory()


def differences(kept, shown):
    """Return what differs between the rows kept and those that SELECT shows; empty if nothing."""
    said = []
    for table, rows in shown.items():
        mine = kept[table]
        missing = sorted(rows.keys() - mine.keys())
        surplus = sorted(mine.keys() - rows.keys())
        other = [key for key in rows.keys() & mine.keys() if rows[key] != mine[key]]
        for what, keys in (("missing", missing), ("surplus", surplus), ("other", other)):
            if keys:
                named = [(mine.get(key), rows.get(key)) for key in keys[:NAMED]]
                said.append(f"{table}: {len(keys)} {what}, kept and shown: {named}")
    return "; ".join(said)
