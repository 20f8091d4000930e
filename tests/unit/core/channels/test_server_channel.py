import tracemalloc

import pytest
from channel_kit import ANON, V1, Driver, frames, identity, of, payloads, reasons
from hypothesis import given, strategies as st

from heliograph.core.channels import effects as fx, results as rs
from heliograph.core.tokens.refusals import expired, malformed, signature_invalid

ORDERS = {"event": "*", "schema": "public", "table": "orders"}
CUSTOMERS = {"event": "INSERT", "schema": "public", "table": "customers", "filter": "id=eq.1"}


def joined(driver=None, *, token=None, holder=None, changes=(ORDERS,), **config):
    """Join with change entries; return the driver and the channel's id."""
    driver = driver or Driver()
    effects = driver.join(changes=changes, token=token, **config)
    if verify := of(fx.VerifyToken, effects):
        effects = driver.report(
            verify[0].channel_id, rs.TokenVerified(verify[0].attempt, holder or identity())
        )
    channel_id = 1
    if subscribe := of(fx.Subscribe, effects):
        channel_id = subscribe[0].channel_id
        driver.report(channel_id, rs.Subscribed(subscribe[0].attempt))
    return driver, channel_id


def refresh(driver, token, holder):
    """Push a new token and let it be verified."""
    (verify,) = of(
        fx.VerifyToken,
        driver.send("1", "9", "realtime:room", "access_token", {"access_token": token}),
    )
    return driver.report(verify.channel_id, rs.TokenVerified(verify.attempt, holder))


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


# --- Refresh --------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, "", "sb_publishable_x", "jwt"])
def test_the_same_token_null_and_keys_are_ignored(token):
    driver, _ = joined(token="jwt")
    effects = driver.send("1", "2", "realtime:room", "access_token", {"access_token": token})
    assert of(fx.VerifyToken, effects) == []
    assert frames(effects) == []


def test_a_new_token_subscribes_anew_and_the_old_subscription_ends_after():
    driver, channel_id = joined()
    effects = refresh(driver, "jwt-2", identity("ada"))
    (subscribe,) = of(fx.Subscribe, effects)
    assert frames(effects) == []
    assert not of(fx.StopDelivery, effects)
    effects = driver.report(channel_id, rs.Subscribed(subscribe.attempt))
    assert [payload["message"] for _, payload in payloads(effects)] == ["Subscribed to PostgreSQL"]
    assert type(effects[-1]) is fx.StartDelivery


def test_a_new_token_on_a_channel_without_entries_says_nothing():
    driver, _ = joined(changes=())
    assert refresh(driver, "jwt-2", identity()) == []


def test_a_refused_subscription_under_a_new_token_stops_the_old_one():
    driver, channel_id = joined()
    (subscribe,) = of(fx.Subscribe, refresh(driver, "jwt-2", identity()))
    effects = driver.report(
        channel_id, rs.SubscriptionRefused(subscribe.attempt, "no", "malformed")
    )
    assert of(fx.StopDelivery, effects)


def test_a_database_away_during_a_refresh_keeps_the_old_subscription():
    driver, channel_id = joined()
    (subscribe,) = of(fx.Subscribe, refresh(driver, "jwt-2", identity()))
    effects = driver.report(channel_id, rs.SubscriptionUnavailable(subscribe.attempt, "away"))
    assert not of(fx.StopDelivery, effects)
    assert of(fx.Subscribe, driver.advance(5))


@pytest.mark.security
def test_anonymous_may_become_a_user_and_back_but_never_another_user():
    driver, _ = joined()
    assert of(fx.Subscribe, refresh(driver, "ada-1", identity("ada")))
    assert of(fx.Subscribe, refresh(driver, "api-key", ANON))
    assert of(fx.Subscribe, refresh(driver, "ada-2", identity("ada")))
    assert of(fx.Subscribe, refresh(driver, "api-key", ANON))
    effects = refresh(driver, "bob-1", identity("bob"))
    assert "another user" in payloads(effects)[0][1]["message"]
    assert payloads(effects)[1][0] == "phx_close"


SERVICE = identity(None, "service_role")


@pytest.mark.parametrize(
    "wider",
    [identity("ada", "service_role"), identity("ada", "staff"), identity(None, "staff"), SERVICE],
)
@pytest.mark.parametrize("is_anonymous_between", [False, True])
def test_a_user_never_gets_another_role_on_the_same_channel(wider, is_anonymous_between):
    driver, channel_id = joined(token="jwt", holder=identity("ada"))
    if is_anonymous_between:
        refresh(driver, "api-key", ANON)
    effects = refresh(driver, "wider", wider)
    assert "another user or role" in payloads(effects)[0][1]["message"]
    assert payloads(effects)[1][0] == "phx_close"
    assert of(fx.EndChannel, effects) == [fx.EndChannel(channel_id)]
    assert of(fx.Subscribe, effects) == []


def test_anonymous_never_becomes_the_service_role():
    driver, _ = joined()
    assert payloads(refresh(driver, "service", SERVICE))[1][0] == "phx_close"


def test_a_servers_key_may_become_a_user_but_not_the_service_role_again():
    driver, _ = joined(Driver(bearer=SERVICE))
    assert of(fx.Subscribe, refresh(driver, "ada", identity("ada")))
    assert payloads(refresh(driver, "api-key", SERVICE))[1][0] == "phx_close"


def test_each_channel_of_a_socket_is_bound_by_its_own_token():
    driver, _ = joined(token="ada", holder=identity("ada"))
    (verify,) = of(fx.VerifyToken, driver.join("realtime:other", token="bob", changes=[ORDERS]))
    effects = driver.report(verify.channel_id, rs.TokenVerified(verify.attempt, identity("bob")))
    assert of(fx.Subscribe, effects)


HOLDERS = st.tuples(
    st.sampled_from([None, "ada", "bob"]),
    st.sampled_from(["anon", "authenticated", "staff", "service_role"]),
)


@given(HOLDERS, st.lists(HOLDERS, max_size=8))
def test_a_channel_speaks_for_one_user_in_one_role_whatever_tokens_come(first, others):
    driver, _ = joined(token="jwt", holder=identity(*first))
    spoken_for = [first]
    for number, holder in enumerate(others):
        if driver.machine.statistics().channels == 0:
            break
        effects = refresh(driver, f"jwt-{number}", identity(*holder, iat=number))
        if of(fx.Subscribe, effects):
            spoken_for.append(holder)
        else:
            # Refused is who is somebody else, or wider; never who was here before.
            assert holder != spoken_for[-1]
            assert [event for event, _ in payloads(effects)] == ["system", "phx_close"]
    users = {one for one in spoken_for if one not in {(None, "anon"), (None, "service_role")}}
    assert len(users) <= 1
    are_service = [role == "service_role" for _, role in spoken_for]
    assert are_service == sorted(are_service, reverse=True)


@pytest.mark.security
def test_an_older_token_of_the_same_user_changes_nothing():
    driver, _ = joined(token="new", holder=identity(iat=200))
    assert refresh(driver, "old", identity(iat=100)) == []
    effects = driver.send("1", "2", "realtime:room", "access_token", {"access_token": "new"})
    assert of(fx.VerifyToken, effects) == []


def test_another_text_of_the_same_claims_is_adopted_without_a_new_subscription():
    driver, channel_id = joined(Driver(limits=no_silence()), token="jwt", holder=identity(iat=100))
    assert refresh(driver, "%6awt", identity(iat=100)) == []
    effects = driver.send("1", "2", "realtime:room", "access_token", {"access_token": "%6awt"})
    assert of(fx.VerifyToken, effects) == []
    assert [check.token for check in of(fx.VerifyToken, driver.advance(300))] == ["%6awt"]
    effects = refresh(driver, "jwt-2", identity(iat=100, admin=True))
    assert of(fx.Subscribe, effects)[0].channel_id == channel_id


def test_claims_that_are_only_nearly_the_same_subscribe_anew():
    driver, _ = joined(token="jwt", holder=identity(admin=1))
    assert of(fx.Subscribe, refresh(driver, "jwt-2", identity(admin=True)))


def test_a_bad_refresh_closes_the_channel_with_its_text():
    driver, _ = joined()
    effects = driver.send("1", "2", "realtime:room", "access_token", {"access_token": "bad"})
    (verify,) = of(fx.VerifyToken, effects)
    effects = driver.report(1, rs.TokenRefused(verify.attempt, signature_invalid()))
    assert [event for event, _ in payloads(effects)] == ["system", "phx_close"]
    assert payloads(effects)[0][1]["message"] == "Failed to validate JWT signature"


@pytest.mark.parametrize("payload", [{"access_token": 5}, "jwt", {"access_token": "x" * 9000}])
def test_a_refresh_of_the_wrong_type_closes_the_channel(payload):
    driver, _ = joined()
    effects = driver.send("1", "2", "realtime:room", "access_token", payload)
    assert payloads(effects)[0][1]["message"] == "The token provided is not a valid JWT"


def test_a_refresh_whose_keys_are_away_ends_in_an_error_after_which_clients_join_again():
    driver, _ = joined()
    effects = driver.send("1", "2", "realtime:room", "access_token", {"access_token": "new"})
    (verify,) = of(fx.VerifyToken, effects)
    effects = driver.report(1, rs.TokenUnverifiable(verify.attempt, "away"))
    assert payloads(effects)[0][1]["message"] == "UnableToVerifyToken: away"
    assert payloads(effects)[1][0] == "phx_error"


def test_a_token_pushed_before_the_join_is_answered_is_the_one_that_counts():
    driver = Driver()
    (first,) = of(fx.VerifyToken, driver.join(token="t1", changes=[ORDERS]))
    effects = driver.send("1", "2", "realtime:room", "access_token", {"access_token": "t2"})
    (second,) = of(fx.VerifyToken, effects)
    assert driver.report(1, rs.TokenVerified(first.attempt, identity("ada"))) == []
    assert of(fx.Subscribe, driver.report(1, rs.TokenVerified(second.attempt, identity("ada"))))


def test_a_refresh_while_subscribing_replaces_the_pending_subscription():
    driver = Driver()
    (first,) = of(fx.Subscribe, driver.join(changes=[ORDERS]))
    (second,) = of(fx.Subscribe, refresh(driver, "jwt", identity()))
    assert driver.report(1, rs.Subscribed(first.attempt)) == []
    effects = driver.report(1, rs.Subscribed(second.attempt))
    assert [event for event, _ in payloads(effects)] == ["phx_reply", "system"]


# --- Time -----------------------------------------------------------------------------------


@pytest.mark.security
def test_a_token_expires_within_a_second_of_its_time():
    driver, _ = joined(token="jwt", holder=identity(expires_s=30))
    assert payloads(driver.advance(29.9)) == []
    effects = driver.advance(1.0)
    assert payloads(effects) == [
        (
            "system",
            {
                "channel": "room",
                "extension": "system",
                "message": "Token has expired 0 seconds ago",
                "status": "error",
            },
        ),
        ("phx_close", {}),
    ]
    assert of(fx.EndChannel, effects)


def test_a_token_that_expires_while_joining_refuses_the_join():
    driver = Driver(bearer=identity(None, "anon", expires_s=2))
    driver.join(changes=[ORDERS])
    assert reasons(driver.advance(3)) == ["InvalidJWTToken: Token has expired 0 seconds ago"]


def test_every_token_is_checked_again_within_300_seconds():
    driver, channel_id = joined(token="jwt", holder=identity())
    for _ in range(3):
        verifications = []
        for _ in range(6):
            driver.send(None, "1", "phoenix", "heartbeat", {})
            verifications += of(fx.VerifyToken, driver.advance(50))
        (verify,) = verifications
        assert verify.token == "jwt"
        assert driver.report(channel_id, rs.TokenVerified(verify.attempt, identity())) == []


def test_a_check_whose_keys_are_away_is_repeated_soon():
    driver, channel_id = joined(Driver(limits=no_silence()), token="jwt")
    (verify,) = of(fx.VerifyToken, driver.advance(300))
    assert driver.report(channel_id, rs.TokenUnverifiable(verify.attempt, "away")) == []
    (again,) = of(fx.VerifyToken, driver.advance(5))
    effects = driver.report(channel_id, rs.TokenRefused(again.attempt, malformed()))
    assert [event for event, _ in payloads(effects)] == ["system", "phx_close"]


def test_a_check_does_not_disturb_a_refresh_under_way():
    driver, channel_id = joined(Driver(limits=no_silence()), token="jwt")
    driver.advance(299)
    effects = driver.send("1", "2", "realtime:room", "access_token", {"access_token": "jwt-2"})
    (verify,) = of(fx.VerifyToken, effects)
    assert of(fx.VerifyToken, driver.advance(2)) == []
    verified = rs.TokenVerified(verify.attempt, identity(iat=299))
    assert of(fx.Subscribe, driver.report(channel_id, verified))


def no_silence():
    from heliograph.core.channels.server_connection import ConnectionLimits

    return ConnectionLimits(silence_s=1e6)


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
