"""What the messages of a Realtime server mean to `heliograph tail`."""

import contextlib
import json

import pytest
from hypothesis import given, strategies as st

from heliograph import limits
from heliograph.cli.tail_conversation import (
    Changed,
    Subscribed,
    TailConversation,
    TailRequest,
    Told,
)
from heliograph.errors import RemoteProtocolError, SubscriptionRefusedError, UnavailableError

TOPIC = "realtime:heliograph-tail"


def frame(event: str, payload: object, *, ref: str | None = None, topic: str = TOPIC) -> str:
    return json.dumps(["1", ref, topic, event, payload])


def system(text: str, *, status: str = "error", extension: str = "postgres_changes") -> str:
    payload = {"message": text, "status": status, "extension": extension, "channel": "x"}
    return frame("system", payload)


SUBSCRIBED = system("Subscribed to PostgreSQL", status="ok")
JOINED = frame("phx_reply", {"status": "ok", "response": {"postgres_changes": []}}, ref="1")
CHANGE = frame("postgres_changes", {"ids": [1], "data": {"type": "INSERT", "record": {"id": 1}}})


def conversation(*, live: bool = False) -> TailConversation:
    talk = TailConversation(TailRequest("public", "orders"))
    talk.join(token=None, now_s=0.0)
    if live:
        assert talk.receive(JOINED, 0.0) is None
        assert talk.receive(SUBSCRIBED, 0.0) == Subscribed()
    return talk


def test_the_join_asks_for_what_was_requested_and_nothing_more():
    request = TailRequest("shop", "orders", "UPDATE", "status=eq.paid", ("id", "status"))
    join = json.loads(TailConversation(request).join(token="secret", now_s=0.0))
    assert join[:4] == ["1", "1", TOPIC, "phx_join"]
    assert join[4]["access_token"] == "secret"
    assert join[4]["config"]["private"] is False
    assert join[4]["config"]["postgres_changes"] == [
        {
            "event": "UPDATE",
            "schema": "shop",
            "table": "orders",
            "filter": "status=eq.paid",
            "select": ["id", "status"],
        }
    ]


def test_what_was_not_asked_for_is_not_in_the_join():
    join = json.loads(TailConversation(TailRequest("public", "*")).join(token=None, now_s=0.0))
    assert "access_token" not in join[4]
    assert join[4]["config"]["postgres_changes"] == [
        {"event": "*", "schema": "public", "table": "*"}
    ]


def test_a_newer_token_is_handed_over():
    refresh = json.loads(conversation().refresh("newer"))
    assert refresh == ["1", None, TOPIC, "access_token", {"access_token": "newer"}]


def test_changes_come_as_they_are_on_the_wire():
    event = conversation(live=True).receive(CHANGE, 0.0)
    assert event == Changed(b'{"type": "INSERT", "record": {"id": 1}}')


def test_being_subscribed_again_after_a_token_refresh_is_no_news():
    assert conversation(live=True).receive(SUBSCRIBED, 0.0) is None


@pytest.mark.parametrize(
    "other",
    [
        b"\x04binary",
        frame("presence_diff", {"joins": {}, "leaves": {}}),
        frame("postgres_changes", {"data": {}}, topic="realtime:other"),
        frame("phx_reply", {"status": "ok", "response": {}}, ref="99"),
        system("Server requested disconnect", status="ok", extension="system"),
    ],
)
def test_messages_for_others_are_ignored(other):
    assert conversation(live=True).receive(other, 0.0) is None


@pytest.mark.parametrize(
    "other",
    [
        "",
        "{}",
        "[]",
        "[1,2,3,4,5]",
        json.dumps(["1", None, TOPIC, "system", []]),
        json.dumps(["1", None, TOPIC, "postgres_changes", {}]),
        json.dumps(["1", "1", TOPIC, "phx_reply", {"status": "ok", "response": "text"}]),
    ],
)
def test_frames_of_another_protocol_are_the_protocol_error(other):
    with pytest.raises(RemoteProtocolError):
        conversation().receive(other, 0.0)


@given(st.text() | st.binary())
def test_any_frame_is_understood_or_the_protocol_error(other):
    talk = conversation(live=True)
    with contextlib.suppress(RemoteProtocolError):
        assert talk.receive(other, 0.0) is None


def test_a_refused_join_is_final():
    refused = frame("phx_reply", {"status": "error", "response": {"reason": "No\x1b"}}, ref="1")
    with pytest.raises(SubscriptionRefusedError, match=r"^No\\u001b$"):
        conversation().receive(refused, 0.0)


@pytest.mark.parametrize("code", ["RealtimeRestarting", "ClientJoinRateLimitReached"])
def test_a_join_refused_for_now_may_be_repeated(code):
    response = {"reason": f"{code}: later"}
    refused = frame("phx_reply", {"status": "error", "response": response}, ref="1")
    with pytest.raises(UnavailableError, match=code):
        conversation().receive(refused, 0.0)


def test_a_refused_subscription_is_final_although_the_join_was_ok():
    talk = conversation()
    talk.receive(JOINED, 0.0)
    with pytest.raises(SubscriptionRefusedError, match="Unable to subscribe"):
        talk.receive(system("Unable to subscribe to changes with given parameters"), 0.0)


def test_a_subscription_that_the_server_repeats_is_waited_for():
    talk = conversation()
    talk.receive(JOINED, 0.0)
    text = "no answer; the server tries again in 5 seconds"
    assert talk.receive(system(text), 0.0) == Told(text)
    assert talk.receive(SUBSCRIBED, 5.0) == Subscribed()


def test_what_the_server_says_of_a_live_subscription_is_passed_on_without_ending_it():
    text = "resync: the table was truncated\x07"
    assert conversation(live=True).receive(system(text), 0.0) == Told(
        "resync: the table was truncated\\u0007"
    )


@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
def test_a_closed_channel_may_be_opened_again(event):
    with pytest.raises(UnavailableError, match="the server closed the channel"):
        conversation(live=True).receive(frame(event, {}, ref="1"), 0.0)


def test_the_reason_of_a_close_is_the_system_message_before_it():
    talk = conversation(live=True)
    assert talk.receive(system("Token has expired 3 seconds ago", extension="system"), 0.0) is None
    with pytest.raises(UnavailableError, match="Token has expired"):
        talk.receive(frame("phx_close", {}, ref="1"), 0.0)


def test_a_channel_that_can_not_be_served_is_not_opened_again():
    with pytest.raises(SubscriptionRefusedError, match="too slow"):
        conversation(live=True).receive(system("policies are too slow", extension="system"), 0.0)


def test_heartbeats_are_due_every_interval_and_must_be_answered():
    interval_s = limits.TAIL_HEARTBEAT_INTERVAL_S
    talk = conversation()
    assert talk.next_deadline_s() == limits.TAIL_ANSWER_TIMEOUT_S
    talk.receive(JOINED, 1.0)
    assert talk.next_deadline_s() == 1.0 + interval_s
    _, ref, topic, event, payload = json.loads(talk.tick(1.0 + interval_s))
    assert (topic, event, payload) == ("phoenix", "heartbeat", {})
    assert talk.next_deadline_s() == 1.0 + 2 * interval_s
    talk.receive(frame("phx_reply", {"status": "ok"}, ref=ref, topic="phoenix"), 30.0)
    talk.tick(1.0 + 2 * interval_s)
    with pytest.raises(UnavailableError, match="heartbeats"):
        talk.tick(1.0 + 3 * interval_s)


def test_an_unanswered_join_ends_the_conversation():
    with pytest.raises(UnavailableError, match="does not answer the join"):
        conversation().tick(limits.TAIL_ANSWER_TIMEOUT_S)
