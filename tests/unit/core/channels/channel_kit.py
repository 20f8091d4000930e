"""What the tests of the channel machines share: identities, a driver, decoded frames."""

import json
from dataclasses import dataclass, field

from heliograph.core.channels import effects as fx, results as rs
from heliograph.core.channels.instant import Instant
from heliograph.core.channels.server_channel import Opening
from heliograph.core.channels.server_connection import ConnectionLimits, ServerConnection
from heliograph.core.wire.messages import SerializerVersion
from heliograph.ports.identity import Identity

UNIX_S = 1_800_000_000.0
V1, V2 = SerializerVersion.V1, SerializerVersion.V2


def identity(subject="ada", role="authenticated", expires_s=None, **claims) -> Identity:
    """Return an identity; ``expires_s`` counts from the start of the test."""
    return Identity(
        role=role,
        claims_json=json.dumps(claims),
        claims=claims,
        subject=subject,
        expires_unix_s=None if expires_s is None else UNIX_S + expires_s,
    )


ANON = identity(None, "anon")


@dataclass
class Driver:
    """A connection machine, its clock, and all it ever asked for."""

    version: SerializerVersion = V2
    bearer: Identity = ANON
    is_browser: bool = False
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    now_s: float = 0.0
    log: list = field(default_factory=list)

    def __post_init__(self):
        opening = Opening(self.version, self.bearer, "api-key", self.is_browser)
        self.machine = ServerConnection(opening, now=self.now, limits=self.limits)

    @property
    def now(self) -> Instant:
        return Instant(1000.0 + self.now_s, UNIX_S + self.now_s)

    def note(self, effects):
        self.log += effects
        return effects

    def send(self, join_ref, ref, topic, event, payload):
        """Let the client send one message; return the effects."""
        if self.version is V1:
            fields = {"topic": topic, "event": event, "payload": payload, "ref": ref}
            text = json.dumps({**fields, "join_ref": join_ref} if join_ref else fields)
        else:
            text = json.dumps([join_ref, ref, topic, event, payload])
        return self.note(self.machine.receive_text(text, self.now))

    def join(self, topic="realtime:room", *, ref="1", changes=(), token=None, **config):
        payload = {"config": {"postgres_changes": list(changes), **config}}
        if token is not None:
            payload["access_token"] = token
        return self.send(ref, ref, topic, "phx_join", payload)

    def report(self, channel_id, result):
        return self.note(self.machine.receive_result(channel_id, result, self.now))

    def advance(self, seconds):
        """Let time pass, ticking at every deadline on the way; return all effects."""
        target_s = self.now_s + seconds
        found = []
        for _ in range(10_000):
            deadline_s = self.machine.next_deadline_s() - 1000.0
            if deadline_s > target_s:
                break
            self.now_s = max(self.now_s, deadline_s)
            found += self.note(self.machine.tick(self.now))
        else:
            raise AssertionError("the machine's deadline does not move")
        self.now_s = target_s
        return found


def frames(effects):
    """Return the frames among effects, decoded."""
    return [json.loads(each.frame) for each in effects if isinstance(each, fx.SendText)]


def payloads(effects):
    """Return (event, payload) of each serializer 2.0.0 frame among effects."""
    return [(frame[3], frame[4]) for frame in frames(effects)]


def of(kind, effects):
    """Return the effects of one kind."""
    return [each for each in effects if isinstance(each, kind)]


def reasons(effects):
    """Return the reasons of error replies among effects."""
    return [
        payload["response"]["reason"]
        for event, payload in payloads(effects)
        if event == "phx_reply" and payload["status"] == "error"
    ]


ORDERS = {"event": "*", "schema": "public", "table": "orders"}


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
