"""The decoder: every message kind, and every kind of damage."""

import pytest

from fixtures.pgoutput import (
    TIME_US,
    encode_begin,
    encode_commit,
    encode_delete,
    encode_insert,
    encode_logical_message,
    encode_origin,
    encode_relation,
    encode_truncate,
    encode_type,
    encode_update,
    make_relation,
)
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
    read_relation_oid,
)
from heliograph.core.replication.relation import ReplicaIdentity
from heliograph.core.replication.row_change import Unknown
from heliograph.errors import RemoteProtocolError

U = Unknown.UNCHANGED_TOAST

MESSAGES = [
    (encode_begin(0x100, xid=2**32 - 1), Begin(0x100, TIME_US, 2**32 - 1)),
    (encode_commit(0x100, 0x130), Commit(0x100, 0x130, TIME_US)),
    (encode_relation(make_relation()), make_relation()),
    (encode_insert(5, ["1", None, ""]), Insert(5, ("1", None, ""))),
    (encode_insert(5, [b"\0\1", "ä"]), Insert(5, (b"\0\1", "ä"))),
    (encode_update(5, ["1", U]), Update(5, None, False, ("1", U))),
    (encode_update(5, ["1"], old=["2"]), Update(5, ("2",), True, ("1",))),
    (encode_update(5, ["1"], old=["2"], kind=b"K"), Update(5, ("2",), False, ("1",))),
    (encode_delete(5, ["1"]), Delete(5, ("1",), True)),
    (encode_delete(5, ["1", None], kind=b"K"), Delete(5, ("1", None), False)),
    (encode_truncate([5, 6], flags=3), Truncate((5, 6), True, True)),
    (encode_truncate([]), Truncate((), False, False)),
    (encode_logical_message("p", b"c", lsn=9), LogicalMessage(True, 9, "p", b"c")),
    (
        encode_logical_message("", b"", transactional=False),
        LogicalMessage(False, 1, "", b""),
    ),
    (encode_type(7, "public", "mood"), TypeName(7, "public", "mood")),
    (encode_origin(8, "elsewhere"), Origin(8, "elsewhere")),
]


@pytest.mark.parametrize(("payload", "message"), MESSAGES)
def test_each_message_kind_is_read(payload, message):
    assert decode_message(payload) == message


@pytest.mark.parametrize("identity", list(ReplicaIdentity))
def test_each_replica_identity_is_read(identity):
    relation = make_relation(identity=identity, columns=("id", "näme"))
    assert decode_message(encode_relation(relation)) == relation


@pytest.mark.parametrize("payload", [payload for payload, _ in MESSAGES])
def test_a_message_cut_short_is_refused(payload):
    for end in range(len(payload)):
        with pytest.raises(RemoteProtocolError, match="pgoutput"):
            decode_message(payload[:end])


@pytest.mark.parametrize("payload", [payload for payload, _ in MESSAGES])
def test_bytes_behind_a_message_are_refused(payload):
    with pytest.raises(RemoteProtocolError, match="ends at"):
        decode_message(payload + b"n")


@pytest.mark.parametrize(
    "payload",
    [
        b"S\0\0\0\0",  # streaming of running transactions was not asked for
        encode_insert(5, ["1"]).replace(b"N", b"O"),
        encode_update(5, ["1"]).replace(b"N", b"X"),
        encode_update(5, ["1"], old=["2"]).replace(b"N", b"X"),
        encode_delete(5, ["1"]).replace(b"O", b"N"),
        encode_insert(5, ["1"]).replace(b"t", b"z"),
        encode_insert(5, ["ä"]).replace("ä".encode(), b"\xc3\x28"),
        encode_relation(make_relation()).replace(b"notes\0f", b"notes\0x"),
        encode_relation(make_relation()).replace(b"notes", b"\xff\xff\xff\xff\xff"),
        encode_insert(5, ["1"])[:-5] + b"\xff\xff\xff\xff1",  # a value of 4 GB
    ],
)
def test_damaged_messages_are_refused(payload):
    with pytest.raises(RemoteProtocolError):
        decode_message(payload)


def test_a_refusal_holds_no_value():
    damaged = encode_insert(5, ["secret"]) + b"!"
    with pytest.raises(RemoteProtocolError) as refused:
        decode_message(damaged)
    assert "secret" not in str(refused.value)


def test_the_table_of_a_row_is_read_without_its_values():
    assert read_relation_oid(encode_insert(77, ["1"])) == 77
    assert read_relation_oid(b"....." + encode_delete(78, ["1"]), 5) == 78
    with pytest.raises(RemoteProtocolError, match="needs 5 bytes"):
        read_relation_oid(b"I\0\0")
