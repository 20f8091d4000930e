"""An issuer that accepts connections and never answers: who waits, and what they are told."""

import asyncio
import contextlib
import json
import time

import jwt
import pytest
import websockets
from cryptography.hazmat.primitives.asymmetric import ec

from fixtures.raw_client import connected
from heliograph import limits

pytestmark = pytest.mark.asyncio


@contextlib.asynccontextmanager
async def silent_issuer():
    """Give the address of a key set that is asked for and never comes."""
    writers = []
    server = await asyncio.start_server(
        lambda _reader, writer: writers.append(writer), "127.0.0.1", 0
    )
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


def foreign_token():
    """Sign with a key that only the issuer can know."""
    claims = {"role": "authenticated", "sub": "u", "exp": int(time.time()) + 600}
    private = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(claims, private, "ES256", headers={"kid": "theirs"})


async def send(client, event, token):
    message = ["1", event, "realtime:room", event, {"access_token": token}]
    await client.socket.send(json.dumps(message))


async def refusal_of(url):
    """Return status and body of a refused handshake."""
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(url)
    answer = refused.value.response
    return answer.status_code, json.loads(answer.body)["error"]


async def test_only_a_token_of_the_issuer_waits_for_it_and_is_not_called_bad(start_server):
    async with silent_issuer() as url:
        server = start_server(HELIOGRAPH_JWKS_URL=url)
        handshake = f"{server.websocket_url}/websocket?vsn=2.0.0&apikey={foreign_token()}"
        async with connected(server) as client:
            async with asyncio.timeout(limits.JWKS_TIMEOUT_S):
                await send(client, "phx_join", server.token("u"))
                await client.until(lambda: client.frames)
                assert client.frames[0][4]["status"] == "ok"
                # And what nobody can have signed is bad at once: this one has four parts.
                assert (await refusal_of(f"{handshake}.x"))[0] == 401
            await send(client, "access_token", foreign_token())
            await client.until(lambda: client.frames[-1][3] == "phx_error")
            told = "UnableToVerifyToken: the keys of the token's issuer can not be had now"
            assert client.errors("room")[-1] == told
        assert await refusal_of(handshake) == (500, "Error connecting to Realtime")
