"""Which tokens are good, and with which words the others are refused (S2, S3, protocol §1.3)."""

import json
import urllib.parse

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from hypothesis import given, strategies as st
from token_kit import CLAIMS, NOW, OTHER_SECRET, SECRET, b64, b64_json, signed

from heliograph.core.tokens.jwks import read_jwks
from heliograph.core.tokens.key_set import KeySet, secret_key
from heliograph.core.tokens.refusals import handshake_text, join_text
from heliograph.core.tokens.token_verifier import TokenVerifier
from heliograph.errors import TokenError

MALFORMED = "MalformedJWT: The token provided is not a valid JWT"
SIGNATURE = "JwtSignatureError: Failed to validate JWT signature"
SIGNER = (
    "JwtSignerError: Failed to generate JWT signer, check your JWT secret or JWKS configuration"
)
MISSING = "InvalidJWTToken: Fields `role` and `exp` are required in JWT"


def signer_for(key_id):
    return (
        f'JwtSignerError: Failed to generate JWT signer for key ID (kid) "{key_id}", '
        "check your JWT secret or JWKS configuration"
    )


@pytest.fixture(scope="module")
def pairs():
    return {
        "rsa-1": rsa.generate_private_key(65537, 2048),
        "p256-1": ec.generate_private_key(ec.SECP256R1()),
        "p384-1": ec.generate_private_key(ec.SECP384R1()),
        "p521-1": ec.generate_private_key(ec.SECP521R1()),
        "ed25519-1": ed25519.Ed25519PrivateKey.generate(),
        "ed448-1": ed448.Ed448PrivateKey.generate(),
    }


ALGORITHM_CLASSES = {
    "rsa": jwt.algorithms.RSAAlgorithm,
    "p": jwt.algorithms.ECAlgorithm,
    "ed": jwt.algorithms.OKPAlgorithm,
}


def jwk_of(key_id, private_key):
    algorithm = next(cls for prefix, cls in ALGORITHM_CLASSES.items() if key_id.startswith(prefix))
    return {**algorithm.to_jwk(private_key.public_key(), as_dict=True), "kid": key_id}


@pytest.fixture(scope="module")
def jwks(pairs):
    keys = [jwk_of(key_id, private) for key_id, private in pairs.items()]
    keys.append({"kty": "oct", "kid": "oct-1", "k": b64(OTHER_SECRET.encode()), "use": "sig"})
    read = read_jwks(json.dumps({"keys": keys}), may_hold_secrets=True)
    assert read.left_out == ()
    return read.keys


@pytest.fixture(scope="module")
def verifier(jwks):
    return TokenVerifier(KeySet(secret=secret_key(SECRET), keys=jwks))


def refusal(verifier, token, now_s=NOW):
    with pytest.raises(TokenError) as caught:
        verifier.verify(token, now_s=now_s)
    return join_text(caught.value)


def test_a_good_token_becomes_role_claims_and_expiry(verifier):
    token = verifier.verify(signed(CLAIMS), now_s=NOW)
    assert token.role == "authenticated"
    assert token.subject == "user-1"
    assert token.expires_unix_s == NOW + 3600
    assert json.loads(token.claims_json) == CLAIMS == dict(token.claims)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_the_shared_secret_goes_with_every_hmac(verifier, algorithm):
    long_secret = SECRET * 2
    own = TokenVerifier(KeySet(secret=secret_key(long_secret)))
    token = jwt.encode(CLAIMS, long_secret, algorithm)
    assert own.verify(token, now_s=NOW).role == "authenticated"


@pytest.mark.parametrize(
    ("key_id", "algorithm"),
    [
        ("rsa-1", "RS256"),
        ("rsa-1", "RS384"),
        ("rsa-1", "RS512"),
        ("p256-1", "ES256"),
        ("p384-1", "ES384"),
        ("p521-1", "ES512"),
        ("ed25519-1", "EdDSA"),
        ("ed448-1", "EdDSA"),
    ],
)
@pytest.mark.security
def test_each_kind_of_key_verifies_with_its_own_algorithms_and_no_others(
    verifier, pairs, key_id, algorithm
):
    token = jwt.encode(CLAIMS, pairs[key_id], algorithm, headers={"kid": key_id})
    assert verifier.verify(token, now_s=NOW).subject == "user-1"
    # the same signature under every other key id and algorithm name
    _header, payload, signature = token.split(".")
    for other_id in (*pairs, "oct-1", "unknown"):
        for other_algorithm in ("RS256", "ES256", "ES384", "EdDSA", "Ed25519", "HS256", "none"):
            if (other_id, other_algorithm) in {(key_id, algorithm), (key_id, "Ed25519")}:
                continue
            changed = b64_json({"alg": other_algorithm, "kid": other_id})
            text = refusal(verifier, f"{changed}.{payload}.{signature}")
            assert text in {SIGNATURE, signer_for(other_id)}, (other_id, other_algorithm)


@pytest.mark.parametrize(("key_id", "name"), [("ed25519-1", "Ed25519"), ("ed448-1", "Ed448")])
def test_edwards_keys_also_go_by_the_name_of_their_curve(verifier, pairs, key_id, name):
    message = f"{b64_json({'alg': name, 'kid': key_id})}.{b64_json(CLAIMS)}"
    token = f"{message}.{b64(pairs[key_id].sign(message.encode()))}"
    assert verifier.verify(token, now_s=NOW).role == "authenticated"
    other = "Ed448" if name == "Ed25519" else "Ed25519"
    message = f"{b64_json({'alg': other, 'kid': key_id})}.{b64_json(CLAIMS)}"
    token = f"{message}.{b64(pairs[key_id].sign(message.encode()))}"
    assert refusal(verifier, token) == signer_for(key_id)


@pytest.mark.security
@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "HS1", "PS256", "RS256 "])
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_no_signature_is_no_signature_in_any_spelling(verifier, name, signature):
    token = f"{b64_json({'alg': name})}.{b64_json(CLAIMS)}.{signature}"
    assert refusal(verifier, token) in {MALFORMED, SIGNER}


@pytest.mark.security
def test_a_public_key_is_no_hmac_secret(verifier, pairs, jwks):
    public = pairs["rsa-1"].public_key()
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for forged_with in (
        pem,
        pem.strip(),
        der.decode("latin-1"),
        json.dumps(jwk_of("rsa-1", pairs["rsa-1"])),
    ):
        for header in (
            {"alg": "HS256"},
            {"alg": "HS256", "kid": "rsa-1"},
            {"alg": "HS256", "kid": "unknown"},
        ):
            token = signed(CLAIMS, header=header, secret=forged_with)
            assert refusal(verifier, token) in {SIGNATURE, signer_for("rsa-1")}


@pytest.mark.security
def test_a_key_id_of_another_kind_of_key_is_binding(verifier):
    # Even a token signed with the true shared secret: the named key is not a secret.
    token = signed(CLAIMS, header={"alg": "HS256", "kid": "rsa-1"})
    assert refusal(verifier, token) == signer_for("rsa-1")


def test_a_known_secret_of_the_set_is_used_before_the_shared_one(verifier):
    header = {"alg": "HS256", "kid": "oct-1"}
    assert verifier.verify(signed(CLAIMS, header=header, secret=OTHER_SECRET), now_s=NOW)
    assert refusal(verifier, signed(CLAIMS, header=header)) == SIGNATURE


def test_an_unknown_key_id_falls_back_to_the_shared_secret_for_hmac_only(verifier, pairs):
    assert verifier.verify(signed(CLAIMS, header={"alg": "HS256", "kid": "legacy"}), now_s=NOW)
    token = jwt.encode(CLAIMS, pairs["rsa-1"], "RS256", headers={"kid": "legacy"})
    assert refusal(verifier, token) == signer_for("legacy")
    token = jwt.encode(CLAIMS, pairs["rsa-1"], "RS256")
    assert refusal(verifier, token) == SIGNER


@pytest.mark.security
@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c"])
def test_a_key_inside_the_token_is_not_looked_at(verifier, pairs, member):
    mine = rsa.generate_private_key(65537, 2048)
    value = {
        "jwk": jwk_of("rsa-1", mine),
        "jku": "http://127.0.0.1:1/keys",
        "x5u": "http://127.0.0.1:1/cert",
        "x5c": ["AAAA"],
    }[member]
    token = jwt.encode(CLAIMS, mine, "RS256", headers={"kid": "rsa-1", member: value})
    assert refusal(verifier, token) == SIGNATURE


@pytest.mark.security
@pytest.mark.parametrize(
    "header",
    [
        {"alg": "HS256", "kid": ["a"]},
        {"alg": "HS256", "kid": 1},
        {"alg": "HS256", "kid": {}},
        {"alg": "HS256", "kid": ""},
        {"alg": "HS256", "kid": "k" * 256},
        {"alg": "HS256", "crit": ["x"]},
        {"alg": "HS256", "crit": []},
        {"alg": ["HS256"]},
        {"alg": None},
        {"alg": 1},
        {},
    ],
)
def test_a_header_of_wrong_types_is_malformed(verifier, header):
    assert refusal(verifier, signed(CLAIMS, header=header)) == MALFORMED


@pytest.mark.security
@pytest.mark.parametrize(
    "key_id", ["../../dev/null", "'; drop table users; --", "a\nb", "ключ", "k" * 200]
)
def test_a_strange_key_id_finds_nothing_and_is_shown_only_if_harmless(verifier, pairs, key_id):
    token = jwt.encode(CLAIMS, pairs["rsa-1"], "RS256", headers={"kid": key_id})
    text = refusal(verifier, token)
    assert text in {SIGNER, signer_for(key_id)}
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 250


@pytest.mark.security
@pytest.mark.parametrize(
    "change",
    [
        lambda token: "",
        lambda token: "   ",
        lambda token: token.rsplit(".", 1)[0],
        lambda token: token + ".AAAA",
        lambda token: token + ".AAAA.BBBB",
        lambda token: token.replace(".", ".."),
        lambda token: "." + token,
        lambda token: token + "=",
        lambda token: "é" + token,
        lambda token: "Bearer" + token + "!",
        lambda token: b64(b"not json") + token[token.index(".") :],
        lambda token: b64(b"[1]") + token[token.index(".") :],
        lambda token: b64(b"\xff\xfe") + token[token.index(".") :],
        lambda token: b64(b'\xef\xbb\xbf{"alg":"HS256"}') + token[token.index(".") :],
        lambda token: "A" + token[token.index(".") :],
        lambda token: "sb_publishable_abc",
        lambda token: "x" * 20_000,
        lambda token: "%25" * 9_000,
    ],
)
def test_what_is_no_token_is_malformed(verifier, change):
    assert refusal(verifier, change(signed(CLAIMS))) == MALFORMED


def test_eight_kilobytes_are_the_most(verifier):
    def token_of(padding):
        return signed({**CLAIMS, "p": "x" * padding})

    fits = next(n for n in range(5900, 6200) if len(token_of(n)) > 8192) - 1
    assert len(token_of(fits)) <= 8192
    assert verifier.verify(token_of(fits), now_s=NOW)
    assert refusal(verifier, token_of(fits + 1)) == MALFORMED


def test_percent_encoding_and_white_space_are_undone(verifier):
    token = signed(CLAIMS)
    wrapped = "\n ".join(token[i : i + 30] for i in range(0, len(token), 30)) + "\t"
    for text in (wrapped, urllib.parse.quote(wrapped), token.replace(".", "%2E")):
        assert verifier.verify(text, now_s=NOW).role == "authenticated"


def test_another_spelling_of_the_signature_is_refused(verifier):
    # The last character of 32 bytes carries two bits that belong to no byte.
    token = signed(CLAIMS)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    sibling = alphabet[alphabet.index(token[-1]) ^ 1]
    assert refusal(verifier, token[:-1] + sibling) == MALFORMED


@given(st.integers(0, 2000), st.integers(1, 255))
def test_any_changed_byte_is_refused(place, change):
    verifier = TokenVerifier(KeySet(secret=secret_key(SECRET)))
    token = bytearray(signed(CLAIMS).encode())
    place %= len(token)
    token[place] ^= change
    try:
        verifier.verify(token.decode("latin-1"), now_s=NOW)
    except TokenError:
        return
    # Only white space may have been changed into the token, and there is none in it.
    raise AssertionError(token)


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda raw: raw.decode("latin-1")))
def test_any_text_only_ever_raises_the_token_error(text):
    verifier = TokenVerifier(KeySet(secret=secret_key(SECRET)))
    with pytest.raises(TokenError):
        verifier.verify(text, now_s=NOW)
    assert verifier.missing_key_id(text) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_any_signed_payload_is_verified_or_refused_and_stays_what_it_was(value):
    verifier = TokenVerifier(KeySet(secret=secret_key(SECRET)))
    payload = {"x": value, **CLAIMS}
    try:
        token = verifier.verify(signed(json.dumps(payload).encode()), now_s=NOW)
    except TokenError:
        return
    assert json.loads(token.claims_json) == payload
    assert "\\u0000" not in token.claims_json.replace("\\\\", "")


@pytest.mark.security
@pytest.mark.parametrize(
    ("member", "text"),
    [
        ('"exp":"1900000000"', "InvalidJWTToken: Token expiration time is invalid"),
        ('"exp":true', "InvalidJWTToken: Token expiration time is invalid"),
        ('"exp":null', "InvalidJWTToken: Token expiration time is invalid"),
        ('"exp":[1900000000]', "InvalidJWTToken: Token expiration time is invalid"),
        ('"exp":{"a":1}', "InvalidJWTToken: Token expiration time is invalid"),
        ('"exp":NaN', MALFORMED),
        ('"exp":Infinity', MALFORMED),
        ('"exp":1e400', MALFORMED),
        ('"exp":1e999', MALFORMED),
        ('"exp":' + "9" * 5000, MALFORMED),
        ('"exp":18446744073709551616', MALFORMED),
        ('"exp":-5', "InvalidJWTToken: Token has expired 1800000005 seconds ago"),
        ('"exp":1799999990', "InvalidJWTToken: Token has expired 10 seconds ago"),
        ('"exp":1799999999.4', "InvalidJWTToken: Token has expired 1 seconds ago"),
        ('"exp":1800000000', "InvalidJWTToken: Token has expired 0 seconds ago"),
        ('"ex":1900000000', MISSING),
        ('"exp":1900000000,"iat":"1700000000"', MALFORMED),
        ('"exp":1900000000,"iat":false', MALFORMED),
        ('"exp":1900000000,"iat":null', MALFORMED),
        ('"exp":1900000000,"nbf":"1700000000"', MALFORMED),
        ('"exp":1900000000,"nbf":1800000006', "InvalidJWTToken: Token is not valid yet"),
        ('"exp":1900000000,"exp":1900000000', MALFORMED),
        ('"exp":1900000000,"role":"service_role"', MALFORMED),
        ('"exp":1900000000,"a":{"b":1,"b":2}', MALFORMED),
        ('"exp":1900000000,"a":"\\u0000"', MALFORMED),
        ('"exp":1900000000,"\\u0000":1', MALFORMED),
        ('"exp":1900000000,"a":["\\ud800"]', MALFORMED),
        ('"exp":1900000000,"a":"\x01"', MALFORMED),
        ('"exp":1900000000,"a":' + "[" * 65 + "]" * 65, MALFORMED),
        ('"exp":1900000000,"a":' + "[" * 3000, MALFORMED),
        ('"exp":1900000000,"a":-1e999', MALFORMED),
        ('"exp":1900000000,}', MALFORMED),
    ],
)
def test_times_and_types_of_claims(verifier, member, text):
    payload = '{"role":"anon",' + member + "}"
    assert refusal(verifier, signed(payload.encode())) == text


@pytest.mark.security
@pytest.mark.parametrize(
    "member",
    [
        '"exp":1800000001',
        '"exp":1800000000.5',
        '"exp":1.9e9',
        '"exp":18446744073709551615',
        '"exp":1900000000,"iat":1700000000.25',
        '"exp":1900000000,"nbf":1800000005',
        '"exp":1900000000,"a":"\\\\u0000"',
        '"exp":1900000000,"a":"\\"[[["',
        '"exp":1900000000,"a":' + "[" * 60 + "]" * 60,
        '"exp":1900000000,"a":-9223372036854775808',
    ],
)
def test_these_are_good(verifier, member):
    token = verifier.verify(signed(('{"role":"anon",' + member + "}").encode()), now_s=NOW)
    assert token.role == "anon"
    assert token.subject is None


@pytest.mark.parametrize("role", [None, 1, "", ["anon"], {"a": 1}, True])
def test_the_role_must_be_a_name(verifier, role):
    assert refusal(verifier, signed({**CLAIMS, "role": role})) == MISSING


@pytest.mark.security
@pytest.mark.parametrize(
    "role", ["postgres", "supabase_admin", "ANON", "anon ", "pg_read_all_data"]
)
def test_only_allowed_roles_are_accepted(verifier, role):
    assert refusal(verifier, signed({**CLAIMS, "role": role})) == (
        "InvalidJWTToken: Claim `role` of the token is not one that this server accepts"
    )


@pytest.mark.parametrize(
    ("claim", "claims"),
    [
        ("app_metadata.role", {"app_metadata": {"role": "authenticated"}}),
        ("https://shop.example/role", {"https://shop.example/role": "authenticated"}),
        ("a.b.c", {"a": {"b": {"c": "authenticated"}}}),
    ],
)
def test_the_role_may_stand_in_another_claim(verifier, claim, claims):
    other = TokenVerifier(verifier.keys, role_claim=claim)
    payload = {**claims, "role": "service_role", "exp": CLAIMS["exp"]}
    assert other.verify(signed(payload), now_s=NOW).role == "authenticated"
    assert refusal(other, signed({"role": "anon", "exp": CLAIMS["exp"]})) == MISSING
    assert (
        refusal(other, signed({"a": "anon", "app_metadata": [], "exp": CLAIMS["exp"]})) == MISSING
    )


def test_required_claims_must_be_equal(verifier):
    strict = TokenVerifier(verifier.keys, required_claims={"iss": "https://shop.example/auth/v1"})
    good = {**CLAIMS, "iss": "https://shop.example/auth/v1"}
    assert strict.verify(signed(good), now_s=NOW)
    for claims in (CLAIMS, {**good, "iss": "https://shop.example/auth/v1/"}, {**good, "iss": None}):
        assert "Claim `iss`" in refusal(strict, signed(claims))


def test_required_claims_are_compared_as_json(verifier):
    wanted = {"level": 1, "is_staff": True, "plan": None, "org": {"id": 7, "parts": ["a", "b"]}}
    strict = TokenVerifier(verifier.keys, required_claims=wanted)
    good = {**CLAIMS, **wanted}
    assert strict.verify(signed({**good, "org": {"parts": ["a", "b"], "id": 7}}), now_s=NOW)
    without_plan = {name: value for name, value in good.items() if name != "plan"}
    for claims in ({**good, "level": True}, {**good, "is_staff": 1}, without_plan):
        assert "Claim `" in refusal(strict, signed(claims))


@pytest.mark.parametrize("subject", ["a-non-uuid|google", "", "6f1d"])
def test_the_subject_need_not_be_a_uuid(verifier, subject):
    token = verifier.verify(signed({**CLAIMS, "sub": subject}), now_s=NOW)
    assert token.subject == subject


@pytest.mark.parametrize(
    ("subject", "text"), [(5, "5"), (5.5, "5.5"), (["a"], '["a"]'), (True, "true"), (None, None)]
)
def test_a_subject_that_is_no_string_is_its_json(verifier, subject, text):
    """As ``auth.uid()`` and every policy read it: ``claims ->> 'sub'``."""
    assert verifier.verify(signed({**CLAIMS, "sub": subject}), now_s=NOW).subject == text


def test_only_an_unknown_key_of_an_asymmetric_token_is_worth_fetching(verifier, pairs):
    def token_with(header):
        return f"{b64_json(header)}.{b64_json(CLAIMS)}.AAAA"

    assert verifier.missing_key_id(token_with({"alg": "RS256", "kid": "new"})) == "new"
    assert verifier.missing_key_id(token_with({"alg": "RS256", "kid": "rsa-1"})) is None
    assert verifier.missing_key_id(token_with({"alg": "HS256", "kid": "new"})) is None
    assert verifier.missing_key_id(token_with({"alg": "RS256"})) is None
    assert verifier.missing_key_id("nonsense") is None
    named = b64_json({"alg": "RS256", "kid": "new"})
    for damaged in (f"{named}.AAAA.AAAA", f"{named}.{b64_json(CLAIMS)}.?"):
        assert verifier.missing_key_id(damaged) is None


def test_handshakes_say_it_without_code_and_without_the_time(verifier):
    with pytest.raises(TokenError) as caught:
        verifier.verify(signed({**CLAIMS, "exp": int(NOW) - 7}), now_s=NOW)
    assert handshake_text(caught.value) == "Token has expired"
    with pytest.raises(TokenError) as caught:
        verifier.verify("x", now_s=NOW)
    assert handshake_text(caught.value) == "The token provided is not a valid JWT"


@pytest.mark.security
def test_no_error_holds_a_piece_of_the_token(verifier):
    for token in (signed(CLAIMS)[:-3], signed(CLAIMS, secret=OTHER_SECRET), signed({"role": "x"})):
        with pytest.raises(TokenError) as caught:
            verifier.verify(token, now_s=NOW)
        parts = [part for part in token.split(".") if len(part) > 8]
        assert not any(part in str(caught.value) for part in parts)
