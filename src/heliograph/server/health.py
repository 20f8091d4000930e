"""``/health``: the process lives. ``/ready``: every part that it needs does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


@dataclass(frozen=True, slots=True)
class ReadinessPart:
    """Something that must work for the server to be of use.

    Attributes:
        name: ``database``, ``reader``, ``judge``, …
        problem: Returns None if it works, else what is wrong, in words without secrets. Must be
            quick: it tells what is known, it does not go and look.
    """

    name: str
    problem: Callable[[], str | None]


def health_routes(parts: Sequence[ReadinessPart]) -> list[Route]:
    """Return the routes.

    ``/health`` answers 200 ``{"status":"ok"}``. ``/ready`` answers 200 or 503 with
    ``{"status":"ready"|"not_ready","parts":{name:{"ready":bool,"problem":text|null}}}``.
    """

    async def health(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"}, headers={"cache-control": "no-store"})

    async def ready(_request: Request) -> JSONResponse:
        problems = {part.name: part.problem() for part in parts}
        is_ready = not any(problems.values())
        return JSONResponse(
            {
                "status": "ready" if is_ready else "not_ready",
                "parts": {
                    name: {"ready": problem is None, "problem": problem}
                    for name, problem in problems.items()
                },
            },
            status_code=200 if is_ready else 503,
            headers={"cache-control": "no-store"},
        )

    return [Route("/health", health), Route("/ready", ready)]
