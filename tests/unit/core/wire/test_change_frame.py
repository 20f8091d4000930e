import json

import pytest

from heliograph.core.wire.change_frame import ChangeFrames, LegacyChangeFrames
from heliograph.core.wire.messages import SerializerVersion

V1, V2 = SerializerVersion.V1, SerializerVersion.V2
TOPIC = 'realtime:50% "öl"'
DATA = b'{"schema":"public","type":"UPDATE","record":{"id":9007199254740993}}'


def test_a_change_of_serializer_2_has_this_shape():
    frame = b"".join(ChangeFrames(TOPIC, V2).pieces([7, 134217728], DATA))
    assert json.loads(frame) == [
        None,
        None,
        TOPIC,
        "postgres_changes",
        {"ids": [7, 134217728], "data": json.loads(DATA)},
    ]
    assert DATA in frame


def test_a_change_of_serializer_1_has_a_null_ref():
    frame = b"".join(ChangeFrames(TOPIC, V1).pieces((7,), DATA))
    assert json.loads(frame) == {
        "event": "postgres_changes",
        "payload": {"ids": [7], "data": json.loads(DATA)},
        "ref": None,
        "topic": TOPIC,
    }


def test_the_data_is_passed_on_and_not_copied():
    assert ChangeFrames(TOPIC, V2).pieces([1], DATA)[1] is DATA


def test_many_different_sets_of_ids_keep_memory_bounded_and_frames_right():
    frames = ChangeFrames(TOPIC, V2)
    for number in range(1, 500):
        frame = b"".join(frames.pieces([number], DATA))
        assert json.loads(frame)[4]["ids"] == [number]
        assert b"".join(frames.pieces([number], DATA)) == frame
    assert len(frames._prefixes) <= 64


@pytest.mark.parametrize("version", [V1, V2])
@pytest.mark.parametrize("kind", ["INSERT", "UPDATE", "DELETE"])
def test_a_legacy_change_is_an_event_of_its_own_type(version, kind):
    data = DATA.replace(b"UPDATE", kind.encode())
    decoded = json.loads(b"".join(LegacyChangeFrames(TOPIC, version).pieces([3], data)))
    expected = (
        [None, None, TOPIC, kind, json.loads(data)]
        if version is V2
        else {"event": kind, "payload": json.loads(data), "ref": None, "topic": TOPIC}
    )
    assert decoded == expected
