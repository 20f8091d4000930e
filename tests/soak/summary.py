"""What a run came to: lines that one can read, and the same as JSON."""

import dataclasses
import statistics

from soak.ledger import LAWS


def laws(ledger):
    """Return how often each law was broken."""
    return {name: ledger.counts[f"law {name}"] for name in LAWS}


def recoveries(ledger):
    """Return for each kind of fault how often, and the median and longest recovery in seconds."""
    return {
        name: {
            "times": len(taken),
            "median_s": round(statistics.median(taken), 1),
            "longest_s": round(max(taken), 1),
        }
        for name, taken in sorted(ledger.recoveries_s.items())
    }


def counted(ledger, prefix):
    """Return the counts whose names begin with a word, without it."""
    return {
        name.removeprefix(prefix): count
        for name, count in sorted(ledger.counts.items())
        if name.startswith(prefix)
    }


def cuts(ledger):
    """Return all cuts together."""
    return sum(counted(ledger, "cuts ").values())


def as_json(result):
    """Return everything."""
    ledger = result.ledger
    return {
        "scale": dataclasses.asdict(result.scale),
        "elapsed_s": round(result.elapsed_s, 1),
        "clients": result.clients,
        "row_changes_committed": ledger.rows,
        "commits": ledger.committed,
        "cuts": cuts(ledger),
        "laws_broken": laws(ledger),
        "faults": counted(ledger, "fault "),
        "recoveries": recoveries(ledger),
        "resyncs": counted(ledger, "resync "),
        "counts": dict(sorted(ledger.counts.items())),
        "memory_mb": result.memory_mb,
        "broken": ledger.broken,
    }


def one_line(result):
    """Return the line of each minute."""
    ledger = result.ledger
    broken = sum(laws(ledger).values())
    faults = sum(counted(ledger, "fault ").values())
    resyncs = sum(counted(ledger, "resync ").values())
    return (
        f"{result.elapsed_s / 60:5.1f} min: {ledger.rows:,} row changes, {ledger.committed:,}"
        f" commits, {ledger.counts['events delivered']:,} events delivered, {cuts(ledger):,} cuts,"
        f" {faults} faults, {resyncs:,} resyncs, {ledger.counts['settled rounds']} rounds,"
        f" {result.behind:,} commits behind;"
        f" broken laws: {broken}"
    )


def text(result):
    """Return the summary."""
    ledger = result.ledger
    counts = ledger.counts
    memory = result.memory_mb or [0]
    started = counts["rights_changed explained only by a start of the server"]
    parts = [
        f"Soak of {result.elapsed_s / 60:.1f} minutes, seed {result.scale.seed}",
        "",
        _table(
            {
                "row changes committed": ledger.rows,
                "commits": ledger.committed,
                "events delivered to clients": counts["events delivered"],
                "clients": result.clients,
                "cuts": cuts(ledger),
                "connections of raw clients": counts["connections"],
                "resumes asked for": counts["resumes asked for"],
                "faults": sum(counted(ledger, "fault ").values()),
                "loads by SELECT": counts["loads"],
                "settled rounds": counts["settled rounds"],
                "comparisons with SELECT": counts["comparisons with SELECT"],
                "rows compared": counts["rows compared"],
                "rolled back": counts["rolled back by will"] + counts["rolled back by others"],
                "absences beyond the ring": counts["absences"],
            }
        ),
        "",
        "Faults, and seconds until every prompt client had followed (median, longest)",
        _recovery_table(ledger),
        "",
        "Resyncs told, by reason; each of them explained by what was done unless counted below",
        _table(counted(ledger, "resync ")),
        "",
        f"  of rights_changed, explained only by a start of the server: {started:,}",
        "",
        f"Memory of the server, MB: first {memory[0]}, last {memory[-1]}, most {max(memory)}",
        "",
        "Laws broken",
        _table(laws(ledger)),
    ]
    if ledger.broken:
        said = [f"  {line[:600]}" for line in ledger.broken[:20]]
        parts += ["", f"What was wrong (logs and journals in {result.folder}):", *said]
    return "\n".join(parts)


def _table(rows):
    width = max((len(name) for name in rows), default=0)
    return "\n".join(f"  {name:<{width}}  {count:>12,}" for name, count in rows.items())


def _recovery_table(ledger):
    found = recoveries(ledger)
    lines = []
    for name, times in counted(ledger, "fault ").items():
        took = found.get(name)
        text = f"{took['median_s']:>7} {took['longest_s']:>7}" if took else ""
        lines.append(f"  {name:<28} {times:>5} {text}")
    return "\n".join(lines)
