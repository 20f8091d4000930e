"""Laws of the replication decoder and of folding, over generated streams.

* whatever is encoded is decoded to the same (each message, each frame);
* any bytes give messages or `RemoteProtocolError`, nothing else;
* how messages are grouped, and where a connection breaks, changes nothing;
* folded changes lead from the table before a transaction to the table after it, in any order.
"""

import random
import struct

import pytest
from hypothesis import given, strategies as st

from fixtures.pgoutput import (
    TIME_US,
    MemorySpill,
    encode_begin,
    encode_commit,
    encode_delete,
    encode_insert,
    encode_keepalive,
    encode_logical_message,
    encode_origin,
    encode_relation,
    encode_truncate,
    encode_type,
    encode_update,
    encode_xlog_data,
    make_assembler,
    make_relation,
    make_transaction,
)
from heliograph.core.replication.frames import decode_frame
from heliograph.core.replication.lsn import MAX_LSN
from heliograph.core.replication.oversize import OversizeBounds, OversizeTransaction
from heliograph.core.replication.pgoutput import (
    Begin,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Origin,
    Truncate,
    TypeName,
    Update,
    decode_message,
)
from heliograph.core.replication.relation import Relation, RelationColumn, ReplicaIdentity
from heliograph.core.replication.row_change import ChangeKind, Unknown
from heliograph.core.replication.stream import ReplicationStream
from heliograph.core.replication.transaction import Transaction
from heliograph.errors import RemoteProtocolError

pytestmark = pytest.mark.property

OID = 16384

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.one_of(st.none(), texts, st.binary(max_size=12), st.just(Unknown.UNCHANGED_TOAST))
tuples = st.lists(values, max_size=6).map(tuple)
columns = st.builds(RelationColumn, names, u32, st.integers(-(2**31), 2**31 - 1), st.booleans())
relations = st.builds(
    Relation,
    u32,
    names,
    names,
    st.sampled_from(ReplicaIdentity),
    st.lists(columns, max_size=5).map(tuple),
)


@st.composite
def updates(draw):
    oid, old, new = draw(u32), draw(st.none() | tuples), draw(tuples)
    kind = draw(st.sampled_from([b"K", b"O"]))
    is_full = old is not None and kind == b"O"
    return encode_update(oid, new, old=old, kind=kind), Update(oid, old, is_full, new)


@st.composite
def deletes(draw):
    oid, old, kind = draw(u32), draw(tuples), draw(st.sampled_from([b"K", b"O"]))
    return encode_delete(oid, old, kind=kind), Delete(oid, old, kind == b"O")


@st.composite
def logical_messages(draw):
    transactional, lsn = draw(st.booleans()), draw(u64)
    prefix, content = draw(names), draw(st.binary(max_size=30))
    payload = encode_logical_message(prefix, content, transactional=transactional, lsn=lsn)
    return payload, LogicalMessage(transactional, lsn, prefix, content)


messages = st.one_of(
    st.tuples(u64, u32).map(lambda m: (encode_begin(m[0], xid=m[1]), Begin(m[0], TIME_US, m[1]))),
    st.tuples(u64, u64).map(lambda m: (encode_commit(*m), Commit(*m, TIME_US))),
    relations.map(lambda relation: (encode_relation(relation), relation)),
    st.tuples(u32, tuples).map(lambda m: (encode_insert(*m), Insert(*m))),
    updates(),
    deletes(),
    st.tuples(st.lists(u32, max_size=4).map(tuple), st.integers(0, 3)).map(
        lambda m: (
            encode_truncate(m[0], flags=m[1]),
            Truncate(m[0], bool(m[1] & 1), bool(m[1] & 2)),
        )
    ),
    logical_messages(),
    st.tuples(u32, names, names).map(lambda m: (encode_type(*m), TypeName(*m))),
    st.tuples(u64, names).map(lambda m: (encode_origin(*m), Origin(*m))),
)


@given(messages)
def test_what_is_encoded_is_decoded(encoded):
    payload, message = encoded
    assert decode_message(payload) == message


@given(st.binary(max_size=80) | st.tuples(st.sampled_from(b"BCRIUDTMYO"), st.binary(max_size=80)))
def test_any_bytes_are_a_message_or_refused(payload):
    if isinstance(payload, tuple):
        payload = bytes([payload[0]]) + payload[1]
    try:
        decode_message(payload)
    except RemoteProtocolError:
        return
    assert payload[0] in b"BCRIUDTMYO"


@given(messages, st.data())
def test_a_damaged_message_is_a_message_or_refused(encoded, data):
    payload = bytearray(encoded[0])
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_message(bytes(payload))
    except RemoteProtocolError as refused:
        assert "pgoutput" in str(refused)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_frame_or_refused(frame):
    try:
        decode_frame(frame)
    except RemoteProtocolError:
        return
    assert frame[:1] in {b"w", b"k"}


@given(st.lists(messages.map(lambda encoded: encoded[0]), max_size=12))
def test_any_sequence_of_messages_is_assembled_or_refused(stream):
    assembler = make_assembler(memory_bytes=50)
    for payload in stream:
        try:
            transaction = assembler.receive(payload)
        except RemoteProtocolError:
            assembler.reset()
            continue
        if transaction is not None:
            _decode_or_refuse(transaction)


def _decode_or_refuse(transaction):
    mark = getattr(transaction, "mark", transaction)
    wanted = {relation.oid: None for relation in mark.relations}
    try:
        if isinstance(transaction, Transaction):
            transaction.decode(wanted)
        else:
            list(transaction.segments(wanted))
    except RemoteProtocolError:
        return


# --- grouping and broken connections ------------------------------------------------------


def make_frames(data):
    """A stream of transactions with keepalives anywhere; returns frames and commit positions."""
    relation = make_relation(OID)
    frames, commits, lsn = [], [], 0x100
    for _ in range(data.draw(st.integers(1, 6))):
        rows = [encode_insert(OID, [str(n), "a"]) for n in range(data.draw(st.integers(0, 4)))]
        payloads = [encode_begin(lsn), encode_relation(relation), *rows, encode_commit(lsn)]
        frames += [encode_xlog_data(payload) for payload in payloads]
        commits.append(lsn)
        lsn += 0x10
        if data.draw(st.booleans()):
            frames.insert(data.draw(st.integers(0, len(frames))), encode_keepalive(1))
    return frames, commits


def run_stream(stream, frames):
    told = []
    for frame in frames:
        event = stream.receive_frame(frame)
        if hasattr(event, "commit_lsn") or hasattr(event, "mark"):
            told.append(getattr(event, "mark", event).commit_lsn)
            stream.hand_on()
    return told


@given(st.data())
def test_however_often_the_connection_breaks_each_transaction_is_told_once(data):
    frames, commits = make_frames(data)
    stream = ReplicationStream(make_assembler(memory_bytes=data.draw(st.sampled_from([10, 1000]))))
    told = []
    for _ in range(data.draw(st.integers(0, 4))):
        stream.restart(system_identifier="1", timeline=1, wal_end=MAX_LSN)
        told += run_stream(stream, frames[: data.draw(st.integers(0, len(frames)))])
    stream.restart(system_identifier="1", timeline=1, wal_end=MAX_LSN)
    told += run_stream(stream, frames)
    assert told == commits


# --- folding against a model --------------------------------------------------------------


class TableModel:
    """A table of (id, body, big) as a list of rows; makes valid operations at random."""

    def __init__(self, generator, identity, *, spacious):
        self.generator = generator
        self.relation = make_relation(OID, ("id", "body", "big"), identity=identity)
        self.is_full = identity is ReplicaIdentity.FULL
        self.keys = [str(number) for number in range(12 if spacious else 5)]
        self.rows = {key: self.values(key) for key in self.keys if generator.random() < 0.5}
        self.payloads = []

    def values(self, key):
        return (key, self.generator.choice("abc"), self.generator.choice(["x", "y", None]))

    def step(self):
        free = [key for key in self.keys if key not in self.rows]
        taken = list(self.rows)
        steps = [self.insert] * bool(free) + [self.change, self.delete] * bool(taken)
        steps += [self.move] * bool(free and taken)
        steps += [self.exchange] * (self.is_full and len(taken) > 1)
        self.generator.choice(steps)(free, taken)

    def insert(self, free, _taken):
        key = self.generator.choice(free)
        self.rows[key] = self.values(key)
        self.payloads.append(encode_insert(OID, self.rows[key]))

    def change(self, _free, taken):
        key = self.generator.choice(taken)
        self.update(key, key)

    def move(self, free, taken):
        self.update(self.generator.choice(taken), self.generator.choice(free))

    def delete(self, _free, taken):
        key = self.generator.choice(taken)
        old = self.rows.pop(key)
        self.payloads.append(
            encode_delete(OID, old)
            if self.is_full
            else encode_delete(OID, (key, None, None), kind=b"K")
        )

    def exchange(self, _free, taken):
        """Two rows exchange keys, as a key that is checked at COMMIT allows."""
        one, two = self.generator.sample(taken, 2)
        old_one, old_two = self.rows[one], self.rows[two]
        new_one, new_two = (two, *old_one[1:]), (one, *old_two[1:])
        self.payloads.append(encode_update(OID, new_one, old=old_one))
        self.payloads.append(encode_update(OID, new_two, old=old_two))
        self.rows[two], self.rows[one] = new_one, new_two

    def update(self, key, new_key):
        old = self.rows.pop(key)
        new = self.values(new_key)
        sent = list(new)
        if self.generator.random() < 0.4:  # the large value was not touched
            new = (*new[:2], old[2])
            sent = [*new[:2], old[2] if old[2] is None else Unknown.UNCHANGED_TOAST]
        self.rows[new_key] = new
        if self.is_full:
            self.payloads.append(encode_update(OID, sent, old=old))
        elif key != new_key:
            self.payloads.append(encode_update(OID, sent, old=(key, None, None), kind=b"K"))
        else:
            self.payloads.append(encode_update(OID, sent))


def assert_leads_from(before, changes, after, *, is_full):
    """Check the changes by key, in a random order, against both tables."""
    rows = dict(before)
    seen = []
    for change in random.sample(list(changes), len(changes)):
        if change.old is not None:
            seen.append(change.old[0])
            assert change.old[0] in before
            assert change.old_is_full is is_full
            if is_full:
                assert change.old == before[change.old[0]]
        if change.new is not None:
            if change.old is None or change.old[0] != change.new[0]:
                seen.append(change.new[0])
            for sent, real in zip(change.new, after[change.new[0]], strict=True):
                assert sent == real or (sent is Unknown.UNCHANGED_TOAST and not is_full)
    assert len(set(seen)) == len(seen), "a key occurs in two changes"
    for change in changes:
        if change.old is not None:
            rows.pop(change.old[0], None)
    for change in changes:
        if change.new is not None:
            rows[change.new[0]] = after[change.new[0]]
    assert rows == after


@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 25),
    identity=st.sampled_from([ReplicaIdentity.FULL, ReplicaIdentity.DEFAULT]),
    spacious=st.booleans(),
)
def test_folded_changes_lead_from_before_to_after(seed, steps, identity, spacious):
    model = TableModel(random.Random(seed), identity, spacious=spacious)
    before = dict(model.rows)
    for _ in range(steps):
        model.step()
    transaction = make_transaction([model.relation], model.payloads)
    changes = transaction.decode({OID: (0,) if model.is_full else None})
    assert_leads_from(before, changes, model.rows, is_full=model.is_full)
    assert [change.sequence for change in changes] == sorted(c.sequence for c in changes)
    untouched = {key for key, row in before.items() if model.rows.get(key) == row}
    told = {change.new[0] for change in changes if change.kind is ChangeKind.INSERT}
    assert not told & untouched

    spill = MemorySpill()
    for payload in model.payloads:
        spill.append(payload)
    mark = make_transaction([model.relation], model.payloads)
    mark.is_too_large = True
    bounds = OversizeBounds(segment_rows=3, key_bitmap_bits=random.Random(seed).choice([8, 4096]))
    segments = OversizeTransaction(mark, spill, bounds=bounds).segments(
        {OID: (0,) if model.is_full else None}
    )
    in_segments = [change for segment in segments for change in segment]
    assert_leads_from(before, in_segments, model.rows, is_full=model.is_full)

    def content(change):
        return (change.sequence, change.kind.value, str(change.new), str(change.old))

    assert sorted(map(content, in_segments)) == sorted(map(content, changes))
    assert [change.sequence for change in in_segments] == [change.sequence for change in changes]


@given(st.binary(max_size=200), st.integers(0, 5))
def test_rows_of_any_bytes_are_decoded_or_refused(rest, oid_tail):
    relation = make_relation(OID)
    payload = struct.pack(">cI", b"IUD"[oid_tail % 3 : oid_tail % 3 + 1], OID) + rest
    transaction = make_transaction([relation], [payload, encode_insert(OID, ["1", "a"])])
    try:
        transaction.decode({OID: (0,)})
    except RemoteProtocolError as refused:
        assert "row message" in str(refused)
