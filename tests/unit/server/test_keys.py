"""Who a caller is, by API key, by token, and by keys that are fetched."""

import asyncio
import json

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from heliograph import limits
from heliograph.core.tokens.api_keys import ApiKeys
from heliograph.core.tokens.key_set import KeySet, secret_key
from heliograph.core.tokens.minting import mint_legacy_key, mint_token
from heliograph.core.tokens.token_verifier import TokenVerifier
from heliograph.errors import ConfigurationError, TokenError, UnavailableError
from heliograph.server.jwks import RemoteKeys
from heliograph.server.keys import Keys

pytestmark = pytest.mark.asyncio

SECRET = "a secret of at least thirty-two bytes, truly"
URL = "https://issuer.example/keys"


class SetClock:
    def __init__(self):
        self.now_s = 1_800_000_000.0

    def unix_s(self):
        return self.now_s

    def monotonic_s(self):
        return self.now_s


class Issuer:
    """An issuer's key endpoint."""

    def __init__(self):
        self.private = {}
        self.requests = []
        self.answer = None
        self.gate = None
        self.asked = asyncio.Event()

    def add(self, key_id):
        self.private[key_id] = ec.generate_private_key(ec.SECP256R1())

    def token(self, key_id, **claims):
        payload = {"role": "authenticated", "sub": "u", "exp": 1_900_000_000, **claims}
        return jwt.encode(payload, self.private[key_id], "ES256", headers={"kid": key_id})

    async def handle(self, request):
        self.requests.append(str(request.url))
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.answer is not None:
            return self.answer
        algorithm = jwt.algorithms.ECAlgorithm
        keys = [
            {**algorithm.to_jwk(private.public_key(), as_dict=True), "kid": key_id}
            for key_id, private in self.private.items()
        ]
        keys.append({"kty": "oct", "kid": "leaked", "k": "c2VjcmV0IG9mIHRoaXJ0eS10d28gYnl0ZXM"})
        return httpx.Response(200, content=json.dumps({"keys": keys}))


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture
def issuer():
    return Issuer()


@pytest.fixture
def remote(issuer, clock):
    return RemoteKeys(URL, clock, transport=httpx.MockTransport(issuer.handle))


def keys_of(clock, remote=None, *, secret=SECRET, roles=None):
    return Keys(
        verifier=TokenVerifier(KeySet(secret=secret_key(secret))),
        api_keys=ApiKeys(roles or {"sb_publishable_one": "anon", "sb_secret_one": "service_role"}),
        clock=clock,
        remote=remote,
    )


async def test_opaque_keys_are_their_roles_and_never_expire(clock):
    keys = keys_of(clock)
    anon = await keys.identify("sb_publishable_one")
    assert (anon.role, anon.subject, anon.expires_unix_s) == ("anon", None, None)
    assert json.loads(anon.claims_json) == {"role": "anon"} == dict(anon.claims)
    assert (await keys.identify("sb_secret_one")).role == "service_role"


@pytest.mark.security
@pytest.mark.parametrize("text", ["sb_secret_two", "sb_temp_x", "sb_", "sb_publishable_one "])
async def test_an_unknown_opaque_key_is_refused_before_any_token_code(clock, text):
    with pytest.raises(TokenError, match="Invalid authentication credentials"):
        await keys_of(clock).identify(text)


async def test_a_token_is_its_claims(clock):
    token = mint_token(SECRET, {"role": "authenticated", "sub": "u"}, now_s=clock.now_s, ttl_s=60)
    identity = await keys_of(clock).identify(token)
    assert (identity.role, identity.subject) == ("authenticated", "u")
    assert identity.expires_unix_s == clock.now_s + 60
    assert json.loads(identity.claims_json) == dict(identity.claims)
    clock.now_s += 61
    with pytest.raises(TokenError, match="expired 1 seconds ago"):
        await keys_of(clock).identify(token)


async def test_a_legacy_key_of_a_project_whose_secret_we_do_not_have_is_known_by_its_text(clock):
    theirs = mint_legacy_key("the project's own secret, thirty-two bytes", "anon")
    keys = keys_of(clock, roles={theirs: "anon"})
    assert (await keys.identify(theirs)).role == "anon"
    with pytest.raises(TokenError, match="signature"):
        await keys.identify(
            mint_legacy_key("the project's own secret, thirty-two bytes", "service_role")
        )


async def test_fetched_keys_verify_tokens_and_one_fetch_serves_all(clock, issuer, remote):
    issuer.add("k1")
    issuer.gate = asyncio.Event()
    keys = keys_of(clock, remote)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(keys.identify(issuer.token("k1"))) for _ in range(5)]
        await issuer.asked.wait()
        await asyncio.sleep(0)
        issuer.gate.set()
    assert {task.result().role for task in tasks} == {"authenticated"}
    assert issuer.requests == [URL]


async def test_nobody_waits_for_a_slow_issuer_while_keys_are_known(clock, issuer, remote):
    issuer.add("k1")
    keys = keys_of(clock, remote)
    await keys.identify(issuer.token("k1"))
    clock.now_s += limits.JWKS_AGE_S_MAX
    issuer.gate, issuer.asked = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(keys.identify(issuer.token("k1")))
        await issuer.asked.wait()
        assert (await keys.identify(issuer.token("k1"))).role == "authenticated"
        issuer.gate.set()
    assert len(issuer.requests) == 2


async def test_a_rotated_key_is_fetched_when_the_first_token_names_it(clock, issuer, remote):
    issuer.add("k1")
    keys = keys_of(clock, remote)
    await keys.identify(issuer.token("k1"))
    issuer.add("k2")
    clock.now_s += limits.JWKS_REFETCH_INTERVAL_S
    assert (await keys.identify(issuer.token("k2"))).subject == "u"
    assert len(issuer.requests) == 2


@pytest.mark.security
async def test_invented_key_ids_do_not_make_us_hammer_the_issuer(clock, issuer, remote):
    issuer.add("k1")
    keys = keys_of(clock, remote)
    stranger = Issuer()
    for number in range(50):
        stranger.add(f"invented-{number}")
        with pytest.raises(TokenError):
            await keys.identify(stranger.token(f"invented-{number}"))
    assert len(issuer.requests) == 1


async def test_a_withdrawn_key_is_gone_with_the_next_fetch(clock, issuer, remote):
    issuer.add("k1")
    issuer.add("k2")
    keys = keys_of(clock, remote)
    old = issuer.token("k1")
    await keys.identify(old)
    del issuer.private["k1"]
    await keys.identify(old)
    clock.now_s += limits.JWKS_AGE_S_MAX
    with pytest.raises(TokenError, match="key ID"):
        await keys.identify(old)
    assert (await keys.identify(issuer.token("k2"))).role == "authenticated"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (httpx.Response(500), "status 500"),
        (httpx.Response(302, headers={"Location": "http://127.0.0.1/keys"}), "status 302"),
        (httpx.Response(200, content=b"<html>"), "not JSON"),
        (httpx.Response(200, content=b"x" * (limits.JWKS_BYTES_MAX + 1)), "more than"),
    ],
)
@pytest.mark.security
async def test_an_issuer_that_fails_leaves_the_keys_of_before(
    clock, issuer, remote, answer, problem
):
    issuer.add("k1")
    await remote.refresh()
    assert remote.problem == ""
    issuer.answer = answer
    with pytest.raises(UnavailableError, match="can not be had"):
        await remote.refresh()
    assert problem in remote.problem
    assert [key.key_id for key in remote.keys] == ["k1"]
    assert issuer.requests == [URL, URL]
    keys = keys_of(clock, remote)
    assert (await keys.identify(issuer.token("k1"))).role == "authenticated"


async def test_an_issuer_that_is_not_there_is_named(clock):
    def refuse(request):
        raise httpx.ConnectError("no route", request=request)

    remote = RemoteKeys(URL, clock, transport=httpx.MockTransport(refuse))
    await remote.refresh_if_due()
    assert remote.problem == "ConnectError"
    assert remote.keys == ()


async def test_an_issuer_that_never_answers_is_given_up(clock, issuer, remote, monkeypatch):
    monkeypatch.setattr(limits, "JWKS_TIMEOUT_S", 0.01)
    issuer.gate = asyncio.Event()
    with pytest.raises(UnavailableError, match="no answer"):
        await remote.refresh()


def signed_elsewhere(key_id):
    stranger = Issuer()
    stranger.add(key_id)
    return stranger.token(key_id)


async def test_a_token_whose_key_can_not_be_fetched_is_not_refused(clock, issuer, remote):
    issuer.add("k1")
    issuer.answer = httpx.Response(500)
    keys = keys_of(clock, remote)
    for _ in range(3):
        with pytest.raises(UnavailableError, match="can not be had now"):
            await keys.identify(issuer.token("k1"))
    assert len(issuer.requests) == 1
    issuer.answer = None
    clock.now_s += limits.JWKS_REFETCH_INTERVAL_S
    assert (await keys.identify(issuer.token("k1"))).subject == "u"
    with pytest.raises(TokenError, match="key ID"):
        await keys.identify(signed_elsewhere("k2"))


async def test_known_keys_stay_good_while_the_issuer_is_away(clock, issuer, remote):
    issuer.add("k1")
    keys = keys_of(clock, remote)
    await keys.identify(issuer.token("k1"))
    issuer.answer = httpx.Response(500)
    clock.now_s += limits.JWKS_AGE_S_MAX
    assert (await keys.identify(issuer.token("k1"))).subject == "u"
    with pytest.raises(TokenError, match="signature"):
        await keys.identify(signed_elsewhere("k1"))
    with pytest.raises(UnavailableError):
        await keys.identify(signed_elsewhere("k2"))
    assert len(issuer.requests) == 2


async def test_the_server_s_own_keys_do_not_wait_for_the_issuer(clock, issuer, remote):
    theirs = mint_legacy_key("the project's own secret, thirty-two bytes", "anon")
    keys = keys_of(clock, remote, roles={theirs: "anon", "sb_secret_one": "service_role"})
    ours = mint_token(SECRET, {"role": "authenticated"}, now_s=clock.now_s, ttl_s=60)
    roles = [(await keys.identify(text)).role for text in (ours, theirs, "sb_secret_one")]
    assert roles == ["authenticated", "anon", "service_role"]
    assert issuer.requests == []


@pytest.mark.security
async def test_a_caller_who_leaves_does_not_end_the_fetch_that_others_need(clock, issuer, remote):
    issuer.add("k1")
    issuer.gate = asyncio.Event()
    keys = keys_of(clock, remote)
    async with asyncio.TaskGroup() as group:
        leaving = group.create_task(keys.identify(issuer.token("k1")))
        await issuer.asked.wait()
        staying = group.create_task(keys.identify(issuer.token("k1")))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        issuer.gate.set()
    assert leaving.cancelled()
    assert staying.result().subject == "u"
    assert (await keys.identify(issuer.token("k1"))).subject == "u"
    assert len(issuer.requests) == 1


@pytest.mark.security
async def test_what_nobody_can_have_signed_is_refused_without_asking_the_issuer(
    clock, issuer, remote
):
    issuer.add("k1")
    token = issuer.token("k1")
    header, payload, signature = token.split(".")
    unnamed = jwt.encode({"role": "anon"}, issuer.private["k1"], "ES256")
    nothing = jwt.encode({"role": "anon"}, "", "none", headers={"kid": "k1"})
    forged = mint_legacy_key("a secret of somebody else, thirty-two bytes", "service_role")
    damaged = [f"{header}.{payload}.?", f"{header}.?.{signature}", f"{header}.{signature}", "x"]
    for text in (unnamed, nothing, forged, *damaged):
        with pytest.raises(TokenError):
            await keys_of(clock, remote).identify(text)
    assert issuer.requests == []


async def test_what_became_of_the_fetched_keys_is_logged_when_it_changes(clock, issuer, remote):
    async def fetch(times):
        with capture_logs() as lines:
            for _ in range(times):
                clock.now_s += limits.JWKS_AGE_S_MAX
                await remote.refresh_if_due()
        return [(line["event"], line["log_level"]) for line in lines], lines

    seen, lines = await fetch(3)
    assert seen == [("jwks_read", "warning")]
    assert lines[0]["usable_keys"] == 0
    assert "secret that can be fetched" in lines[0]["left_out"][0]
    assert "c2VjcmV0" not in str(lines)
    issuer.answer = httpx.Response(500)
    seen, lines = await fetch(3)
    assert seen == [("jwks_not_fetched", "warning")]
    assert lines[0]["problem"] == "status 500"
    issuer.answer = httpx.Response(200, content=b'{"keys": []}')
    assert (await fetch(2))[0] == [("jwks_read", "warning")]
    issuer.add("k1")
    key = jwt.algorithms.ECAlgorithm.to_jwk(issuer.private["k1"].public_key(), as_dict=True)
    good = json.dumps({"keys": [{**key, "kid": "k1"}]})
    issuer.answer = httpx.Response(200, content=good)
    assert (await fetch(2))[0] == [("jwks_read", "info")]


@pytest.mark.security
async def test_a_fetched_secret_signs_nothing(clock, issuer, remote):
    await remote.refresh()
    assert remote.keys == ()


@pytest.mark.security
@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/keys",
        "file:///etc/passwd",
        "https://",
        "ftp://x/y",
        "keys",
        "http://127.0.0.1.evil.tld/",
        "https://user:password@issuer.example/keys",
    ],
)
async def test_only_https_or_this_machine_is_asked(clock, url):
    with pytest.raises(ConfigurationError):
        RemoteKeys(url, clock)


@pytest.mark.parametrize(
    "url",
    [
        *("http://localhost:1/keys", "http://127.0.0.1/k", "http://127.0.0.2/k", "http://[::1]/k"),
        URL,
    ],
)
async def test_these_addresses_are_good(clock, url):
    assert RemoteKeys(url, clock).keys == ()


@pytest.mark.security
async def test_the_fetcher_never_uses_an_address_from_a_token(clock, issuer, remote):
    issuer.add("k1")
    token = jwt.encode(
        {"role": "anon", "exp": 1_900_000_000},
        issuer.private["k1"],
        "ES256",
        headers={"kid": "new", "jku": "https://evil.example/keys", "x5u": "https://evil.example/c"},
    )
    with pytest.raises(TokenError):
        await keys_of(clock, remote).identify(token)
    assert set(issuer.requests) == {URL}
