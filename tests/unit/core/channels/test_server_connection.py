import json

import pytest
from channel_kit import V1, Driver, frames, identity, of, payloads, reasons
from hypothesis import given, strategies as st

from heliograph.core.channels import effects as fx, results as rs
from heliograph.core.channels.server_connection import ConnectionLimits
from heliograph.core.tokens.refusals import malformed
from heliograph.core.wire.messages import SerializerVersion

ORDERS = {"event": "*", "schema": "public", "table": "orders"}


def closing(effects):
    """Return (number, reason) of each close among effects."""
    return [(each.code.number, each.reason) for each in of(fx.CloseSocket, effects)]


# --- Routing --------------------------------------------------------------------------------


@pytest.mark.parametrize("ref", ["26", None])
def test_a_heartbeat_is_answered_with_its_ref(ref):
    assert frames(Driver().send(None, ref, "phoenix", "heartbeat", {})) == [
        [None, ref, "phoenix", "phx_reply", {"status": "ok", "response": {}}]
    ]


def test_leaving_an_unknown_topic_is_fine():
    effects = Driver().send("1", "2", "realtime:nowhere", "phx_leave", {})
    assert payloads(effects) == [("phx_reply", {"status": "ok", "response": {}})]


def test_other_messages_on_an_unknown_topic_are_answered_if_they_have_a_ref():
    driver = Driver()
    assert reasons(driver.send("1", "2", "realtime:nowhere", "broadcast", {})) == [
        "unmatched topic"
    ]
    assert frames(driver.send("1", None, "realtime:nowhere", "access_token", {})) == []


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("realtime:", "TopicNameRequired: You must provide a topic name"),
        ("phoenix", "unmatched topic"),
        ("room", "unmatched topic"),
        ("realtime:" + "x" * 250, "TopicTooLong: a topic has at most 255 characters"),
    ],
)
def test_a_join_of_an_impossible_topic_is_refused(topic, reason):
    effects = Driver().join(topic)
    assert reasons(effects) == [reason]
    assert frames(effects)[0][:2] == ["1", "1"]


def test_a_join_that_can_not_be_understood_is_refused():
    effects = Driver().send("1", "1", "realtime:room", "phx_join", {"config": 7})
    assert reasons(effects) == ["InvalidJoinPayload: config must be an object"]
    assert fx.Observed(fx.Observation.JOIN, "InvalidJoinPayload") in effects


def test_unknown_events_are_ignored_and_counted():
    driver = Driver()
    driver.join()
    effects = driver.send("1", "2", "realtime:room", "nonsense", {})
    assert [each.what for each in of(fx.Observed, effects)] == [
        *(fx.Observation.MESSAGE, fx.Observation.IGNORED)
    ]
    assert of(fx.Observed, effects)[0].label == "other"
    assert frames(effects) == []


def test_many_channels_live_side_by_side_and_results_find_theirs():
    driver = Driver()
    (first,) = of(fx.Subscribe, driver.join("realtime:a", ref="1", changes=[ORDERS]))
    (second,) = of(fx.Subscribe, driver.join("realtime:b", ref="2", changes=[ORDERS]))
    assert frames(driver.report(second.channel_id, rs.Subscribed(second.attempt)))[0][2] == (
        "realtime:b"
    )
    assert frames(driver.report(first.channel_id, rs.Subscribed(first.attempt)))[0][2] == (
        "realtime:a"
    )
    assert driver.report(99, rs.Subscribed(1)) == []


# --- Malformed ------------------------------------------------------------------------------


def test_malformed_frames_are_dropped_and_counted_and_the_connection_stays():
    driver = Driver()
    assert driver.machine.receive_text("{", driver.now) == [
        fx.Observed(fx.Observation.MALFORMED, "text")
    ]
    assert driver.machine.receive_binary(b"\x09", driver.now) == [
        fx.Observed(fx.Observation.MALFORMED, "binary")
    ]
    assert frames(driver.join())


def test_content_beyond_a_bound_is_answered_if_there_is_a_ref():
    driver = Driver()
    text = '["1","1","realtime:room","phx_join",{"config":{"x":"\\u0000"}}]'
    assert "u0000" in reasons(driver.machine.receive_text(text, driver.now))[0]
    assert (
        frames(driver.machine.receive_text(text.replace('"1","1"', '"1",null'), driver.now)) == []
    )


def test_a_binary_broadcast_is_a_push_and_serializer_1_has_none():
    frame = bytes([3, 1, 1, 13, 5, 0, 1]) + b"14realtime:roomshout{}"
    driver = Driver()
    driver.join()
    effects = driver.machine.receive_binary(frame, driver.now)
    assert "broadcast" in reasons(effects)[0]
    assert frames(effects)[0][:2] == ["1", "4"]
    driver = Driver(version=V1)
    assert driver.machine.receive_binary(frame, driver.now) == [
        fx.Observed(fx.Observation.MALFORMED, "binary")
    ]


# --- Limits ---------------------------------------------------------------------------------


def test_channels_are_limited_and_a_leave_makes_room():
    driver = Driver(limits=ConnectionLimits(channels_max=2))
    for name in "ab":
        assert not reasons(driver.join(f"realtime:{name}"))
    assert reasons(driver.join("realtime:c")) == ["ChannelRateLimitReached: Too many channels"]
    assert not reasons(driver.join("realtime:a"))
    driver.send("1", "2", "realtime:a", "phx_leave", {})
    assert not reasons(driver.join("realtime:c"))


def test_too_many_joins_are_refused_and_end_the_connection():
    driver = Driver(limits=ConnectionLimits(joins_per_s=3))
    for _ in range(3):
        assert not reasons(driver.join())
    effects = driver.join()
    assert reasons(effects) == ["ClientJoinRateLimitReached: Too many joins per second"]
    assert closing(effects) == [(1001, "Too many joins per second")]
    assert driver.join() == []


def test_ten_thousand_joins_cost_one_connection_and_no_more():
    driver = Driver()
    effects = []
    for number in range(10_000):
        effects += driver.join(f"realtime:{number}", changes=[ORDERS])
    assert len(of(fx.Subscribe, effects)) <= 100
    assert len(closing(effects)) == 1


def test_too_many_pushes_close_their_channel_only():
    driver = Driver(limits=ConnectionLimits(pushes_per_s=2))
    driver.join("realtime:a")
    driver.join("realtime:b")
    for _ in range(2):
        driver.send("1", "2", "realtime:a", "broadcast", {})
    effects = driver.send("1", "2", "realtime:a", "broadcast", {})
    assert payloads(effects)[0][1]["message"] == "Too many messages per second"
    assert payloads(effects)[1][0] == "phx_close"
    assert driver.machine.statistics().channels == 1


def test_heartbeats_tokens_and_leaves_are_no_pushes():
    driver = Driver(limits=ConnectionLimits(pushes_per_s=1))
    driver.join()
    for _ in range(20):
        driver.send(None, "1", "phoenix", "heartbeat", {})
        driver.send("1", "2", "realtime:room", "access_token", {"access_token": None})
    assert driver.machine.statistics().channels == 1


def refresh(driver, number, topic="realtime:room"):
    return driver.send("1", "2", topic, "access_token", {"access_token": f"jwt-{number}"})


def test_channels_that_join_and_refresh_again_and_again_at_once_are_served():
    driver = Driver()
    topics = [f"realtime:{number}" for number in range(100)]
    for topic in topics:
        assert not reasons(driver.join(topic))
    for number in range(8):
        for topic in topics:
            assert of(fx.VerifyToken, refresh(driver, number, topic))
    for number in range(100):
        driver.now_s += 25
        for topic in topics:
            assert of(fx.VerifyToken, refresh(driver, number, topic))


def test_a_lasting_flood_of_tokens_is_answered_and_ends_the_connection():
    driver = Driver(limits=ConnectionLimits(messages_per_s=50, refreshes_per_s=10))
    driver.join()
    effects = []
    for number in range(100):
        driver.now_s += 1 / 40
        effects = refresh(driver, number)
        if closing(effects):
            break
    assert 50 < number < 80
    assert reasons(effects) == ["ClientJoinRateLimitReached: Too many tokens per second"]
    assert closing(effects) == [(1001, "Too many tokens per second")]
    assert fx.Observed(fx.Observation.LIMITED, "tokens") in effects


def test_a_token_too_many_without_a_ref_is_not_answered():
    driver = Driver(limits=ConnectionLimits(messages_per_s=50, refreshes_per_s=0))
    driver.join()
    for _ in range(50):
        driver.now_s += 1 / 40
        effects = driver.send("1", None, "realtime:room", "access_token", {"access_token": None})
        assert not closing(effects)
    effects = driver.send("1", None, "realtime:room", "access_token", {"access_token": None})
    assert closing(effects)
    assert frames(effects) == []


def test_a_flood_of_anything_ends_the_connection():
    driver = Driver(limits=ConnectionLimits(messages_per_s=5))
    effects = []
    for _ in range(10):
        effects += driver.machine.receive_text("{", driver.now)
    assert closing(effects) == [(1008, "too many messages per second")]
    driver = Driver(limits=ConnectionLimits(messages_per_s=5))
    effects = []
    for _ in range(10):
        effects += driver.machine.receive_control(driver.now)
        effects += driver.machine.receive_binary(b"", driver.now)
    assert len(closing(effects)) == 1


# --- Time -----------------------------------------------------------------------------------


def test_a_socket_that_never_says_anything_is_closed():
    assert closing(Driver().advance(10.5)) == [(1008, "no message in time")]


def test_a_silent_socket_is_closed_after_a_minute_and_a_heartbeat_keeps_it():
    driver = Driver()
    driver.join()
    for _ in range(5):
        driver.send(None, "1", "phoenix", "heartbeat", {})
        assert closing(driver.advance(50)) == []
    assert closing(driver.advance(15)) == [(3010, "nothing received, not even a heartbeat")]
    assert closing(driver.advance(200)) == []


def test_a_websocket_ping_is_a_sign_of_life():
    driver = Driver()
    driver.join()
    for _ in range(5):
        driver.machine.receive_control(driver.now)
        assert closing(driver.advance(50)) == []


def test_a_socket_without_a_channel_is_closed_after_ten_minutes():
    driver = Driver()
    driver.join()
    effects = []
    for minute in range(25):
        if minute == 5:
            driver.send("1", "2", "realtime:room", "phx_leave", {})
        driver.send(None, "1", "phoenix", "heartbeat", {})
        effects += driver.advance(30)
        if closing(effects):
            break
    assert closing(effects) == [(1008, "no channel was joined")]
    assert driver.now_s == 5 * 30 + 600


# --- Ending ---------------------------------------------------------------------------------


def test_drain_tells_every_channel_and_closes_with_1012():
    driver = Driver()
    driver.join("realtime:a")
    driver.join("realtime:b", changes=[ORDERS])
    effects = driver.machine.drain()
    assert payloads(effects) == [
        (
            "system",
            {
                "channel": name,
                "extension": "system",
                "message": "Server requested disconnect",
                "status": "ok",
            },
        )
        for name in "ab"
    ]
    assert closing(effects) == [(1012, "the server restarts")]
    assert len(of(fx.EndChannel, effects)) == 2
    assert driver.join() == []
    assert driver.machine.drain() == []


def test_a_lost_connection_ends_its_channels_without_a_word():
    driver = Driver()
    driver.join("realtime:a")
    assert driver.machine.connection_lost() == [fx.EndChannel(1)]
    assert driver.machine.statistics().is_closing
    assert driver.machine.connection_lost() == []


# --- Laws -----------------------------------------------------------------------------------

topics = st.sampled_from(["realtime:a", "realtime:b", "realtime:", "phoenix", "x"])
events = st.sampled_from(
    ["phx_join", "phx_leave", "access_token", "broadcast", "presence", "heartbeat", "zzz"]
)
tokens = st.sampled_from([None, "", "sb_x", "api-key", "t1", "t2", 5])
small_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["config", "private", "access_token", "x"]), inner)
    ),
    max_leaves=5,
)
join_payloads = st.fixed_dictionaries(
    {
        "config": st.fixed_dictionaries(
            {"postgres_changes": st.lists(st.just(ORDERS), max_size=2)},
            optional={"private": st.sampled_from([False, "true", 3])},
        )
    },
    optional={"access_token": tokens},
)
messages = st.tuples(
    st.just("message"),
    st.sampled_from([None, "1", "2"]),
    st.sampled_from([None, "3", "4"]),
    topics,
    events,
    join_payloads | st.fixed_dictionaries({"access_token": tokens}) | small_json,
)
identities = st.builds(
    identity,
    st.sampled_from([None, "ada", "bob"]),
    st.sampled_from(["anon", "service_role"]),
    expires_s=st.sampled_from([None, 5, 500]),
)
answers = st.tuples(st.just("answer"), st.integers(0, 10), st.integers(0, 3), identities)
waits = st.tuples(st.just("wait"), st.sampled_from([0.0, 1.0, 6.0, 61.0, 301.0]))
raw = st.tuples(st.just("raw"), st.text(max_size=20) | st.binary(max_size=20))
steps = st.lists(messages | answers | waits | raw | st.just(("drain",)), max_size=40)


def run(driver, script):
    """Play a script; answer pending requests only when the script says so."""
    pending = []
    for step in script:
        before = len(driver.log)
        match step:
            case ("message", join_ref, ref, topic, event, payload):
                driver.send(join_ref, ref, topic, event, payload)
            case ("answer", which, how, holder) if pending:
                answer(driver, pending.pop(which % len(pending)), how, holder)
            case ("wait", seconds):
                driver.advance(seconds)
            case ("raw", str(text)):
                driver.note(driver.machine.receive_text(text, driver.now))
            case ("raw", frame):
                driver.note(driver.machine.receive_binary(frame, driver.now))
            case ("drain",):
                driver.note(driver.machine.drain())
        pending += of((fx.VerifyToken, fx.Subscribe), driver.log[before:])
    driver.note(driver.machine.connection_lost())


def answer(driver, request, how, holder):
    if isinstance(request, fx.VerifyToken):
        result = [
            rs.TokenVerified(request.attempt, holder),
            rs.TokenRefused(request.attempt, malformed()),
            rs.TokenUnverifiable(request.attempt, "away"),
            rs.Hopeless("hopeless"),
        ][how]
    else:
        result = [
            rs.Subscribed(request.attempt),
            rs.SubscriptionRefused(request.attempt, "no", "malformed"),
            rs.SubscriptionUnavailable(request.attempt, "away"),
            rs.Subscribed(request.attempt - 1),
        ][how]
    driver.report(request.channel_id, result)


@given(steps, st.sampled_from(SerializerVersion), st.booleans())
def test_no_sequence_of_messages_raises_and_every_law_holds(script, version, is_browser):
    driver = Driver(version=version, is_browser=is_browser)
    run(driver, script)
    ended, started = set(), set()
    closes = 0
    for effect in driver.log:
        match effect:
            case fx.EndChannel(channel_id):
                assert channel_id not in ended
                ended.add(channel_id)
            case fx.VerifyToken() | fx.Subscribe() | fx.StartDelivery() | fx.StopDelivery():
                # Nothing is asked for a channel that has ended, and at the end all have ended.
                assert effect.channel_id not in ended
                started.add(effect.channel_id)
            case fx.CloseSocket():
                closes += 1
            case fx.SendText(frame):
                well_formed(json.loads(frame), version)
            case fx.Observed():
                pass
    assert closes <= 1
    assert started <= ended
    assert driver.machine.statistics().channels == 0


def well_formed(frame, version):
    """Check what the clients' validation asks of every frame."""
    if version is V1:
        assert set(frame) == {"event", "payload", "ref", "topic"}
        event, payload, ref, join_ref = frame["event"], frame["payload"], frame["ref"], None
    else:
        join_ref, ref, _, event, payload = frame
    match event:
        case "phx_reply":
            assert set(payload) == {"status", "response"}
            assert isinstance(payload["response"], dict)
        case "system":
            assert set(payload) == {"channel", "extension", "message", "status"}
            assert ref is None
        case "phx_close":
            assert payload == {}
            assert version is V1 or ref == join_ref
        case _:
            raise AssertionError(event)


@given(steps)
def test_ok_with_change_entries_always_follows_the_end_of_a_subscribing(script):
    driver = Driver()
    run(driver, script)
    asked = 0
    for effect in driver.log:
        match effect:
            case fx.Subscribe():
                asked += 1
            case fx.SendText(frame):
                payload = json.loads(frame)[4]
                if payload.get("response", {}).get("postgres_changes"):
                    asked -= 1
                    assert asked >= 0
            case _:
                pass
