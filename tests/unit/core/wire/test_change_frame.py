import gc
import json
import weakref

import pytest

from heliograph.core.wire.change_frame import SharedChangeFrames
from heliograph.core.wire.messages import SerializerVersion
from heliograph.core.wire.websocket_frame import TEXT, server_frame_header

V1, V2 = SerializerVersion.V1, SerializerVersion.V2
TOPIC = 'realtime:50% "öl"'
DATA = '{"schema":"public","type":"UPDATE","record":{"id":9007199254740993,"n":"ö"}}'.encode()


def frames_of(version=V2, *, is_legacy=False):
    return SharedChangeFrames().get(TOPIC, version, is_legacy=is_legacy)


def payload_of(frames, ids, data):
    """Return the payload of a frame whose header and size must be right."""
    size, pieces = frames.framed(ids, data)
    frame = b"".join(pieces)
    assert len(frame) == size
    for header_bytes in (2, 4):
        payload = frame[header_bytes:]
        if frame == server_frame_header(TEXT, len(payload)) + payload:
            return payload
    raise AssertionError(frame)


def test_a_change_of_serializer_2_has_this_shape():
    frame = payload_of(frames_of(V2), [7, 134217728], DATA)
    assert json.loads(frame) == [
        None,
        None,
        TOPIC,
        "postgres_changes",
        {"ids": [7, 134217728], "data": json.loads(DATA)},
    ]
    assert DATA in frame


def test_a_change_of_serializer_1_has_a_null_ref():
    assert json.loads(payload_of(frames_of(V1), (7,), DATA)) == {
        "event": "postgres_changes",
        "payload": {"ids": [7], "data": json.loads(DATA)},
        "ref": None,
        "topic": TOPIC,
    }


@pytest.mark.parametrize("version", [V1, V2])
@pytest.mark.parametrize("kind", ["INSERT", "UPDATE", "DELETE"])
def test_a_legacy_change_is_an_event_of_its_own_type(version, kind):
    data = DATA.replace(b"UPDATE", kind.encode())
    decoded = json.loads(payload_of(frames_of(version, is_legacy=True), [3], data))
    expected = (
        [None, None, TOPIC, kind, json.loads(data)]
        if version is V2
        else {"event": kind, "payload": json.loads(data), "ref": None, "topic": TOPIC}
    )
    assert decoded == expected


def test_a_frame_asked_for_once_is_not_copied_and_afterwards_it_is_one_piece_for_all():
    frames = frames_of()
    size, pieces = frames.framed([1], DATA)
    assert pieces[2] is DATA
    again = frames.framed((1,), DATA)
    assert again == (size, (b"".join(pieces),))
    assert frames.framed([1], DATA) is again


def test_a_remembered_frame_is_given_out_for_the_same_change_and_ids_only():
    frames = frames_of()
    same_text = bytes(bytearray(DATA))
    other = DATA.replace(b"ublic", b"ivate")
    wanted = [([1], DATA), ([1], DATA), ([2], DATA), ([1], DATA), ([1], other), ([1], same_text)]
    for ids, data in wanted * 2:
        payload = json.loads(payload_of(frames, ids, data))[4]
        assert payload == {"ids": ids, "data": json.loads(data)}


def test_many_different_sets_of_ids_keep_memory_bounded_and_frames_right():
    frames = frames_of()
    for number in range(1, 500):
        frame = payload_of(frames, [number], DATA)
        assert json.loads(frame)[4]["ids"] == [number]
        assert payload_of(frames, [number], DATA) == frame
    assert len(frames._prefixes) <= 64


def test_channels_of_one_topic_serializer_and_form_share_their_frames():
    shared = SharedChangeFrames()
    frames = shared.get(TOPIC, V2, is_legacy=False)
    assert shared.get(TOPIC, V2, is_legacy=False) is frames
    others = [
        shared.get(TOPIC, V1, is_legacy=False),
        shared.get(TOPIC, V2, is_legacy=True),
        shared.get("realtime:other", V2, is_legacy=False),
    ]
    assert frames not in others
    assert len(set(others)) == 3


def test_the_frames_of_a_topic_without_channels_are_gone():
    shared = SharedChangeFrames()
    gone = weakref.ref(shared.get(TOPIC, V2, is_legacy=False))
    gc.collect()
    assert gone() is None
    assert len(shared._by_topic) == 0


def test_released_frames_keep_nothing_of_a_change():
    shared = SharedChangeFrames()
    held = [shared.get(topic, V2, is_legacy=False) for topic in ("realtime:a", "realtime:b")]
    for _ in range(2):
        for frames in held:
            frames.framed([1], DATA)
            frames.framed([1], DATA)
        shared.release()
        for frames in held:
            assert (frames._data, frames._framed) == (None, None)
        assert shared._remembering == []
