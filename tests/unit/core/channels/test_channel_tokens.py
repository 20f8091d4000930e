"""A channel's token: refreshed, bound to one user and role, expired, checked again."""

import pytest
from channel_kit import (
    ANON,
    ORDERS,
    Driver,
    frames,
    identity,
    joined,
    of,
    payloads,
    reasons,
    refresh,
)
from hypothesis import given, strategies as st

from heliograph.core.channels import effects as fx, results as rs
from heliograph.core.tokens.refusals import malformed, signature_invalid


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


@pytest.mark.security
def test_an_older_token_does_not_come_back_by_way_of_the_anonymous_key():
    driver, _ = joined(token="new", holder=identity(iat=200))
    assert of(fx.Subscribe, refresh(driver, "anon", ANON))
    assert refresh(driver, "old", identity(iat=100)) == []
    assert of(fx.Subscribe, refresh(driver, "newer", identity(iat=201)))


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
