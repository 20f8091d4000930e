"""An application of somebody's own with Heliograph in it, as docs/howto shows it."""

import contextlib
from collections.abc import AsyncGenerator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from heliograph.mounting import MountedServer

heliograph = MountedServer(may_migrate=True)


@contextlib.asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
    async with heliograph.running():
        yield


async def hello(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


app = Starlette(
    routes=[Route("/hello", hello), Mount("/", heliograph)],
    lifespan=lifespan,
)
