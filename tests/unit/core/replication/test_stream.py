"""The stream machine: frames in, transactions and statuses out, across reconnects."""

import pytest

from fixtures.pgoutput import (
    encode_begin,
    encode_commit,
    encode_insert,
    encode_keepalive,
    encode_relation,
    encode_xlog_data,
    make_assembler,
    make_relation,
)
from heliograph.core.replication.frames import Keepalive, decode_standby_status
from heliograph.core.replication.lsn import MAX_LSN, Lsn
from heliograph.core.replication.stream import ReplicationStream
from heliograph.errors import LocalProtocolError, RemoteProtocolError

ROW = encode_insert(1, ["1", "a"])


def make_stream(**bounds):
    stream = ReplicationStream(make_assembler(**bounds))
    stream.restart(system_identifier="7", timeline=1, wal_end=MAX_LSN)
    return stream


def frames(lsn, rows=1):
    messages = [encode_begin(lsn), encode_relation(make_relation(1)), *[ROW] * rows]
    return [encode_xlog_data(message) for message in [*messages, encode_commit(lsn)]]


def feed(stream, *received):
    """Feed frames, hand on every transaction, return commit positions and keepalives."""
    events = []
    for frame in received:
        event = stream.receive_frame(frame)
        if isinstance(event, Keepalive):
            events.append(event)
        elif event is not None:
            stream.hand_on()
            events.append(getattr(event, "mark", event).commit_lsn)
    return events


def statuses(stream, acknowledged, *, is_reply_requested=False):
    sent = stream.statuses(Lsn(acknowledged), now_us=5, is_reply_requested=is_reply_requested)
    return [decode_standby_status(each) for each in sent]


def status(stream, acknowledged):
    """Return the first status, which confirms."""
    return statuses(stream, acknowledged)[0]


def test_a_transaction_moves_the_progress_when_it_is_handed_on():
    stream = make_stream()
    *before, last = frames(0x10)
    feed(stream, *before)
    assert stream.receive_frame(last) is not None
    assert stream.progress == 0
    assert stream.hand_on() == 0x18
    assert stream.progress == 0x18


def test_a_transaction_must_be_handed_on_before_the_next_message():
    stream = make_stream()
    for frame in frames(0x10):
        stream.receive_frame(frame)
    with pytest.raises(LocalProtocolError, match="must be handed on"):
        stream.receive_frame(encode_xlog_data(encode_begin(0x20)))
    stream.hand_on()
    with pytest.raises(LocalProtocolError, match="no transaction"):
        stream.hand_on()


def test_oversize_transactions_are_handed_on_alike():
    stream = make_stream(memory_bytes=1)
    assert feed(stream, *frames(0x10, rows=3)) == [0x10]
    assert stream.progress == 0x18


def test_a_keepalive_moves_the_progress_only_between_transactions():
    stream = make_stream()
    begin, *rest = frames(0x10)
    assert feed(stream, encode_keepalive(0x8, reply=True)) == [
        Keepalive(0x8, 1_795_392_000_000_000, is_reply_requested=True)
    ]
    assert stream.progress == 0x8
    feed(stream, begin, encode_keepalive(0x50))
    assert stream.progress == 0x8
    for frame in rest:
        stream.receive_frame(frame)
    stream.receive_frame(encode_keepalive(0x50))
    assert stream.progress == 0x8
    stream.hand_on()
    assert stream.progress == 0x18


def test_a_status_confirms_what_is_kept():
    stream = make_stream()
    feed(stream, *frames(0x10), *frames(0x20))
    kept = status(stream, 0x18)
    assert (kept.flushed, kept.applied, kept.written) == (0x18, 0x18, 0x28)
    assert kept.sent_at_us == 5
    feed(stream, encode_keepalive(0x90))
    assert status(stream, 0x28).flushed == 0x90
    assert stream.confirmed == 0x90
    assert stream.confirm(Lsn(0x28)) == 0x90


def test_the_last_status_says_what_was_written_and_not_what_is_kept():
    """PostgreSQL does not stop before a reader that says what it flushed has flushed all."""
    stream = make_stream()
    feed(stream, *frames(0x10), *frames(0x20))
    confirming, last = statuses(stream, 0x18, is_reply_requested=True)
    assert (confirming.flushed, confirming.is_reply_requested) == (0x18, False)
    assert (last.written, last.flushed, last.applied) == (0x28, 0, 0)
    assert last.is_reply_requested
    # Nothing new is confirmed, so that the last one is the only one; another connection is told.
    assert [each.flushed for each in statuses(stream, 0x18)] == [0]
    stream.restart(system_identifier="7", timeline=1, wal_end=MAX_LSN)
    assert [each.flushed for each in statuses(stream, 0x18)] == [0x18, 0]


def test_after_a_reconnect_nothing_comes_twice():
    stream = make_stream()
    feed(stream, *frames(0x10), *frames(0x20)[:3])
    stream.restart(system_identifier="7", timeline=1, wal_end=MAX_LSN)
    assert feed(stream, *frames(0x10), *frames(0x20)) == [0x20]


def test_in_another_history_lower_positions_are_new():
    for system, timeline in [("8", 1), ("7", 2)]:
        stream = make_stream()
        feed(stream, *frames(0x20), encode_keepalive(0x90))
        status(stream, 0x90)
        stream.restart(system_identifier=system, timeline=timeline, wal_end=MAX_LSN)
        assert (stream.progress, stream.confirmed) == (0, 0)
        assert feed(stream, *frames(0x10)) == [0x10]


def test_damaged_frames_are_refused():
    stream = make_stream()
    for frame in [b"", b"x", encode_xlog_data(b""), encode_xlog_data(b"Z")]:
        with pytest.raises(RemoteProtocolError):
            stream.receive_frame(frame)
