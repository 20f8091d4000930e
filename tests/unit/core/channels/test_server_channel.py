import tracemalloc

import pytest
from channel_kit import (
    ANON,
    ORDERS,
    V1,
    Driver,
    frames,
    identity,
    joined,
    of,
    payloads,
    reasons,
    refresh,
)

from heliograph.core.channels import effects as fx, results as rs
from heliograph.core.tokens.refusals import expired

CUSTOMERS = {"event": "INSERT", "schema": "public", "table": "customers", "filter": "id=eq.1"}


# --- Joining --------------------------------------------------------------------------------


def test_a_join_without_entries_is_answered_at_once_with_an_empty_list():
    assert frames(Driver().join()) == [
        [
            "1",
            "1",
            "realtime:room",
            "phx_reply",
            {"status": "ok", "response": {"postgres_changes": []}},
        ]
    ]


def test_a_join_with_entries_is_answered_only_after_subscribing():
    driver = Driver()
    effects = driver.join(changes=[ORDERS, CUSTOMERS, ORDERS])
    assert frames(effects) == []
    (subscribe,) = of(fx.Subscribe, effects)
    assert [binding.parameters for binding in subscribe.bindings] == [ORDERS, CUSTOMERS]
    assert subscribe.identity is ANON

    effects = driver.report(subscribe.channel_id, rs.Subscribed(subscribe.attempt))
    (reply, system) = frames(effects)
    echoed = reply[4]["response"]["postgres_changes"]
    assert [{k: v for k, v in each.items() if k != "id"} for each in echoed] == [
        *(ORDERS, CUSTOMERS),
        ORDERS,
    ]
    assert [list(each) for each in echoed] == [[*ORDERS, "id"], [*CUSTOMERS, "id"], [*ORDERS, "id"]]
    assert [each["id"] for each in echoed][:2] == [binding.id for binding in subscribe.bindings]
    assert system == [
        "1",
        None,
        "realtime:room",
        "system",
        {
            "channel": "room",
            "extension": "postgres_changes",
            "message": "Subscribed to PostgreSQL",
            "status": "ok",
        },
    ]
    assert [type(each) for each in effects if not isinstance(each, fx.Observed)] == [
        *(fx.SendText, fx.SendText),
        fx.StartDelivery,
    ]


def test_a_joined_channel_keeps_nothing_that_is_only_echoed():
    driver = Driver()
    heavy = {**ORDERS, "x": [0.5] * 20_000}
    tracemalloc.start()
    try:
        for number in range(10):
            topic = f"realtime:{number}"
            (subscribe,) = of(fx.Subscribe, driver.join(topic, changes=[heavy], y=[0.5] * 20_000))
            driver.report(subscribe.channel_id, rs.Subscribed(subscribe.attempt))
            del subscribe
            driver.log.clear()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert driver.machine.statistics().channels == 10
    assert held < 100_000


def test_an_answered_join_subscribes_anew_to_the_same():
    driver, channel_id = joined(changes=[{**ORDERS, "x": 1}, CUSTOMERS])
    (subscribe,) = of(fx.Subscribe, refresh(driver, "jwt-2", identity()))
    assert subscribe.channel_id == channel_id
    assert [binding.parameters for binding in subscribe.bindings] == [ORDERS, CUSTOMERS]


def test_serializer_1_answers_with_a_ref_and_a_null_ref_on_system():
    driver = Driver(version=V1)
    (subscribe,) = of(fx.Subscribe, driver.join(changes=[ORDERS]))
    reply, system = frames(driver.report(1, rs.Subscribed(subscribe.attempt)))
    assert (reply["ref"], reply["event"]) == ("1", "phx_reply")
    assert "ref" in system
    assert system["ref"] is None


def test_a_refused_subscription_leaves_the_join_ok_and_the_channel_open():
    driver = Driver()
    (subscribe,) = of(fx.Subscribe, driver.join(changes=[ORDERS]))
    refused = rs.SubscriptionRefused(subscribe.attempt, "no such table", "not_enabled")
    effects = driver.report(1, refused)
    assert fx.Observed(fx.Observation.SUBSCRIPTION_REFUSED, "not_enabled") in effects
    (reply, system) = payloads(effects)
    assert reply[1]["status"] == "ok"
    assert system[1]["status"] == "error"
    assert system[1]["message"] == "no such table"
    assert not of(fx.StartDelivery, effects)
    assert driver.machine.statistics().channels == 1


def test_an_unavailable_database_is_asked_again_until_it_answers():
    driver = Driver()
    (subscribe,) = of(fx.Subscribe, driver.join(changes=[ORDERS]))
    (reply, system) = payloads(
        driver.report(1, rs.SubscriptionUnavailable(subscribe.attempt, "database away"))
    )
    assert reply[1]["status"] == "ok"
    assert "database away; the server tries again in 5 seconds" in system[1]["message"]
    (again,) = of(fx.Subscribe, driver.advance(5))
    (only_system,) = payloads(driver.report(1, rs.Subscribed(again.attempt)))
    assert only_system[1]["message"] == "Subscribed to PostgreSQL"
    assert of(fx.Subscribe, driver.advance(30)) == []


def test_a_legacy_join_subscribes_by_topic_and_lists_nothing():
    driver = Driver()
    effects = driver.send("1", "1", "realtime:public:orders", "phx_join", {})
    (subscribe,) = of(fx.Subscribe, effects)
    assert subscribe.bindings[0].parameters == ORDERS
    assert driver.machine.channel(subscribe.channel_id).is_legacy
    (reply, _) = payloads(driver.report(1, rs.Subscribed(subscribe.attempt)))
    assert reply[1]["response"] == {"postgres_changes": []}


@pytest.mark.security
def test_a_private_join_is_refused_with_a_clear_reason():
    effects = Driver().join(private=True)
    assert reasons(effects)[0].startswith("PrivateChannelsUnavailable: ")
    assert of(fx.Observed, effects)[-1] == fx.Observed(
        fx.Observation.JOIN, "PrivateChannelsUnavailable"
    )


def test_a_joins_own_token_is_verified_first():
    driver = Driver()
    effects = driver.join(token="jwt", changes=[ORDERS])
    assert frames(effects) == []
    (verify,) = of(fx.VerifyToken, effects)
    assert verify.token == "jwt"
    ada = identity()
    (subscribe,) = of(fx.Subscribe, driver.report(1, rs.TokenVerified(verify.attempt, ada)))
    assert subscribe.identity is ada


def test_the_connections_own_key_is_not_verified_again():
    assert of(fx.VerifyToken, Driver().join(token="api-key")) == []


def test_a_bad_token_refuses_the_join_with_code_and_text():
    driver = Driver()
    (verify,) = of(fx.VerifyToken, driver.join(token="jwt"))
    effects = driver.report(1, rs.TokenRefused(verify.attempt, expired(3)))
    assert reasons(effects) == ["InvalidJWTToken: Token has expired 3 seconds ago"]
    assert [event for event, _ in payloads(effects)] == ["phx_reply"]
    assert driver.machine.statistics().channels == 0


def test_unreachable_keys_refuse_the_join():
    driver = Driver()
    (verify,) = of(fx.VerifyToken, driver.join(token="jwt"))
    effects = driver.report(1, rs.TokenUnverifiable(verify.attempt, "keys away"))
    assert reasons(effects) == ["UnableToVerifyToken: keys away"]


def test_a_connection_key_that_expired_meanwhile_refuses_the_join():
    driver = Driver(bearer=identity(None, "anon", expires_s=10))
    driver.now_s = 20
    assert reasons(driver.join()) == ["InvalidJWTToken: Token has expired 10 seconds ago"]


@pytest.mark.parametrize("late_s", [0.0, 0.4, 1.2, 4.9])
def test_a_connection_key_gets_no_leeway_at_a_join(late_s):
    driver = Driver(bearer=identity(None, "anon", expires_s=10))
    driver.now_s = 10 + late_s
    effects = driver.join(changes=[ORDERS])
    assert reasons(effects) == [f"InvalidJWTToken: Token has expired {int(late_s)} seconds ago"]
    assert of(fx.Subscribe, effects) == []


def test_a_connection_key_that_runs_out_cuts_its_channels_within_a_second():
    driver, channel_id = joined(Driver(bearer=identity(None, "service_role", expires_s=3)))
    assert driver.advance(2.9) == []
    effects = driver.advance(1.0)
    assert [event for event, _ in payloads(effects)] == ["system", "phx_close"]
    assert of(fx.EndChannel, effects) == [fx.EndChannel(channel_id)]


def test_a_token_that_ran_out_while_it_was_verified_refuses_the_join():
    driver = Driver()
    (verify,) = of(fx.VerifyToken, driver.join(token="jwt", changes=[ORDERS]))
    driver.now_s = 5
    verified = rs.TokenVerified(verify.attempt, identity(expires_s=4))
    effects = driver.report(verify.channel_id, verified)
    assert reasons(effects) == ["InvalidJWTToken: Token has expired 1 seconds ago"]


def test_a_token_that_ran_out_while_it_was_verified_ends_the_channel():
    driver, _ = joined()
    effects = refresh(driver, "jwt", identity(expires_s=0))
    assert payloads(effects)[0][1]["message"] == "Token has expired 0 seconds ago"
    assert payloads(effects)[1][0] == "phx_close"
    assert of(fx.Subscribe, effects) == []


def test_a_service_key_in_a_browser_is_refused_at_join_and_refresh():
    driver = Driver(is_browser=True)
    (verify,) = of(fx.VerifyToken, driver.join(token="service"))
    service = identity(None, "service_role")
    effects = driver.report(1, rs.TokenVerified(verify.attempt, service))
    assert "browser" in reasons(effects)[0]

    driver, _ = joined(Driver(is_browser=True))
    effects = refresh(driver, "service", service)
    assert "browser" in payloads(effects)[0][1]["message"]
    assert payloads(effects)[1][0] == "phx_close"


def test_a_service_key_of_a_server_may_join():
    driver, _ = joined(Driver(bearer=identity(None, "service_role")))
    assert driver.machine.statistics().channels == 1


# --- Leaving, joining again -----------------------------------------------------------------


def test_leave_is_answered_then_the_channel_closes_with_its_join_ref():
    driver, channel_id = joined()
    effects = driver.send("1", "3", "realtime:room", "phx_leave", {})
    assert frames(effects) == [
        ["1", "3", "realtime:room", "phx_reply", {"status": "ok", "response": {}}],
        ["1", "1", "realtime:room", "phx_close", {}],
    ]
    assert of(fx.EndChannel, effects) == [fx.EndChannel(channel_id)]


def test_leave_during_a_pending_join_cancels_it():
    driver = Driver()
    (subscribe,) = of(fx.Subscribe, driver.join(changes=[ORDERS]))
    assert of(fx.EndChannel, driver.send("1", "2", "realtime:room", "phx_leave", {}))
    assert driver.report(1, rs.Subscribed(subscribe.attempt)) == []


def test_a_second_join_of_a_topic_closes_the_first_one_before():
    driver, _ = joined()
    effects = driver.join(ref="5", changes=[ORDERS])
    assert frames(effects) == [["1", "1", "realtime:room", "phx_close", {}]]
    kinds = [type(each) for each in effects if not isinstance(each, fx.Observed)]
    assert kinds == [fx.EndChannel, fx.SendText, fx.Subscribe]
    (subscribe,) = of(fx.Subscribe, effects)
    (reply, _) = frames(driver.report(subscribe.channel_id, rs.Subscribed(subscribe.attempt)))
    assert reply[:2] == ["5", "5"]


def test_serializer_1_is_not_told_of_the_channel_that_a_second_join_replaced():
    driver, _ = joined(Driver(version=V1))
    effects = driver.join(ref="5", changes=[ORDERS])
    assert frames(effects) == []
    assert of(fx.EndChannel, effects)


def test_a_join_without_join_ref_closes_with_its_ref():
    driver = Driver()
    driver.send(None, "8", "realtime:room", "phx_join", {"config": {}})
    effects = driver.send(None, "9", "realtime:room", "phx_leave", {})
    assert frames(effects)[1] == ["8", "8", "realtime:room", "phx_close", {}]


@pytest.mark.parametrize("join_ref", [None, "0", "1"])
def test_messages_with_a_stale_or_missing_join_ref_are_handled(join_ref):
    driver, _ = joined()
    effects = driver.send(join_ref, "7", "realtime:room", "presence", {"event": "track"})
    (reply,) = frames(effects)
    assert reply[:2] == [join_ref or "1", "7"]


# --- Pushes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["broadcast", "presence"])
def test_a_push_gets_an_error_reply_or_a_system_message(event):
    driver, _ = joined()
    assert event in reasons(driver.send("1", "4", "realtime:room", event, {}))[0]
    ((kind, payload),) = payloads(driver.send("1", None, "realtime:room", event, {}))
    assert kind == "system"
    assert payload["status"] == "error"
    assert driver.machine.statistics().channels == 1


# --- Ending ---------------------------------------------------------------------------------


def test_a_hopeless_channel_is_closed_with_its_text():
    driver, channel_id = joined()
    effects = driver.report(channel_id, rs.Hopeless("judgement keeps timing out"))
    assert [event for event, _ in payloads(effects)] == ["system", "phx_close"]
    assert payloads(effects)[0][1]["message"] == "judgement keeps timing out"


def test_a_channel_that_we_failed_ends_in_an_error_after_which_clients_join_again():
    driver, channel_id = joined()
    effects = driver.report(channel_id, rs.Failed("internal_error: a bug"))
    assert frames(effects) == [
        [
            "1",
            None,
            "realtime:room",
            "system",
            {
                "channel": "room",
                "extension": "postgres_changes",
                "message": "internal_error: a bug",
                "status": "error",
            },
        ],
        ["1", "1", "realtime:room", "phx_error", {"reason": "internal_error: a bug"}],
    ]
    assert of(fx.EndChannel, effects) == [fx.EndChannel(channel_id)]
    assert of(fx.Subscribe, driver.join(ref="2", changes=[ORDERS]))


def test_a_join_that_we_failed_is_refused():
    driver = Driver()
    (subscribe,) = of(fx.Subscribe, driver.join(changes=[ORDERS]))
    effects = driver.report(subscribe.channel_id, rs.Failed("internal_error: a bug"))
    assert reasons(effects) == ["internal_error: a bug"]
    assert [event for event, _ in payloads(effects)] == ["phx_reply"]


def test_a_closed_channel_hears_nothing():
    driver, channel_id = joined()
    channel = driver.machine.channel(channel_id)
    driver.send("1", "3", "realtime:room", "phx_leave", {})
    assert channel.receive_result(rs.Hopeless("late"), driver.now) == []
