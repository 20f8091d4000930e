"""What the garbage collector costs beside a full ring: its pauses with our control and without.

Usage: make bench NAME=gc_pauses. Two processes fill a ring in the same way, one-row transactions
through the assembler as in the server, and then go on as a server under load does: each
transaction is decoded for a subscriber that keeps the last changes for a moment. One runs under
`calm_garbage_collector`, the other with Python's defaults. What is compared is the longest pause,
and the share of the time that all pauses take.
"""

import gc
import multiprocessing
import sys
import time
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from _results import machine, write_results

from fixtures.pgoutput import (
    encode_begin,
    encode_commit,
    encode_insert,
    encode_relation,
    make_assembler,
    make_relation,
)
from heliograph.core.changelog.ring import Ring
from heliograph.core.replication.lsn import ZERO_LSN
from heliograph.server.garbage_collection import calm_garbage_collector
from heliograph.server.system_clock import SystemClock

KEPT, LIVE, IN_FLIGHT = 300_000, 200_000, 5_000
NOTES = make_relation(1, ("id", "title", "body", "owner"))
BODY = "a text of some length, as rows have"


def transactions(count):
    assembler = make_assembler()
    relation = encode_relation(NOTES)
    for number in range(1, count + 1):
        lsn = number * 1_000
        assembler.receive(encode_begin(lsn))
        if number == 1:
            assembler.receive(relation)
        assembler.receive(encode_insert(1, [str(number), "title", BODY, "owner"]))
        yield assembler.receive(encode_commit(lsn, lsn + 500))


def run(pauses_s):
    """Fill the ring, then work beside it; keep only the pauses of the second part."""
    ring, in_flight = Ring(ZERO_LSN), deque(maxlen=IN_FLIGHT)
    for number, transaction in enumerate(transactions(KEPT + LIVE)):
        ring.append(transaction, number / 1_000)
        if number >= KEPT:
            in_flight.append(transaction.decode({1: (0,)}))
        if number == KEPT:
            pauses_s.clear()
            began_s = time.perf_counter()
    working_s = time.perf_counter() - began_s
    before_s = time.perf_counter()
    gc.collect()
    return working_s, time.perf_counter() - before_s


def measure(is_calm):
    pauses_s, began = [], []

    def watch(phase, _details):
        if phase == "start":
            began.append(time.perf_counter())
        else:
            pauses_s.append(time.perf_counter() - began.pop())

    if is_calm:
        with calm_garbage_collector(SystemClock(), pauses_s.append):
            working_s, full_s = run(pauses_s)
    else:
        gc.callbacks.append(watch)
        working_s, full_s = run(pauses_s)
    pauses_s.pop()  # that of the collection asked for at the end
    return {
        "collections": len(pauses_s),
        "longest_ms": round(max(pauses_s, default=0.0) * 1e3, 2),
        "share_of_time": round(sum(pauses_s) / working_s, 4),
        "full_collection_ms": round(full_s * 1e3, 2),
    }


def main():
    about = machine()
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        default = pool.apply(measure, (False,))
        calm = pool.apply(measure, (True,))
    ratio = calm["longest_ms"] / default["longest_ms"] if default["longest_ms"] else 0.0
    share = calm["share_of_time"] / default["share_of_time"] if default["share_of_time"] else 0.0
    print(f"longest pause, controlled / Python's defaults: {ratio:.2f}; share of time: {share:.2f}")
    print(f"Python's defaults: {default}")
    print(f"controlled:        {calm}")
    write_results("gc_pauses", {"default": default, "calm": calm, "machine": about})


if __name__ == "__main__":
    main()
