"""The paths: /mutate and /validate for the API server, the others for probes and Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from webhook.core.kube.review import MAX_REVIEW_BYTES, BadReviewError
from webhook.server.admission import allowance
from webhook.server.http.server import HttpError, Route, json_body, require_json, text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Protocol

    from webhook.server.http.callers import Caller, Callers
    from webhook.server.http.connections import Connections
    from webhook.server.http.health import Health
    from webhook.server.http.server import Call

    Render = Callable[[str], Awaitable[tuple[bytes, str]]]

    class Answer(Protocol):
        """Answers reviews: in this process, or through the dispatcher in a worker."""

        def __call__(
            self, phase: str, body: bytes, seconds: float, *, caller: Caller, parent: str
        ) -> Awaitable[bytes]:
            """Return the response within ``seconds``. ``parent`` is the traceparent header, or empty."""


# The API server's default for a webhook configuration without a timeout (admissionregistration.k8s.io/v1).
DEFAULT_TIMEOUT = 10.0
_GET = frozenset({"GET", "HEAD"})
_POST = frozenset({"POST"})


class UnauthenticatedError(Exception):
    """The caller's token was not accepted."""


def review_routes(
    answer: Answer, callers: Callers, connections: Connections, limit: float, *, traced: bool = False
) -> dict[str, Route]:
    """Return the routes for the API server; each review is answered within ``limit`` seconds."""

    def review(phase: str) -> Callable[[Call], Awaitable[web.Response]]:
        async def handle(call: Call) -> web.Response:
            request = call.request
            require_json(request)
            caller = callers.check(request, listed=connections.is_listed(request.remote or ""))
            parent = request.headers.get("traceparent", "") if traced else ""
            seconds = allowance(_timeout(call.target.query), limit)
            try:
                return json_body(await answer(phase, call.body, seconds, caller=caller, parent=parent))
            except BadReviewError as error:
                raise HttpError(400, " ".join(str(error).split())) from None
            except UnauthenticatedError:
                raise HttpError(403, "only the API server may send reviews") from None

        return handle

    return {f"/{phase}": Route(_POST, review(phase), MAX_REVIEW_BYTES) for phase in ("validate", "mutate")}


def watch_routes(health: Health, render: Render) -> dict[str, Route]:
    """Return the routes for probes and Prometheus."""

    async def healthz(call: Call) -> web.Response:
        del call
        return text(200, "ok")

    async def readyz(call: Call) -> web.Response:
        del call
        trouble = health.trouble()
        return text(200, "ready") if trouble is None else text(503, f"not ready: {trouble}")

    async def scrape(call: Call) -> web.Response:
        body, content_type = await render(call.request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    return {"/healthz": Route(_GET, healthz), "/readyz": Route(_GET, readyz), "/metrics": Route(_GET, scrape)}


def _timeout(query: Mapping[str, str]) -> float:
    """Return the seconds that the API server waits, from the query (k8s.io/client-go rest.Request.Timeout)."""
    seconds = query.get("timeout", "").removesuffix("s")
    return (
        float(seconds) if seconds.isascii() and seconds.isdecimal() and len(seconds) <= 4 else DEFAULT_TIMEOUT
    )
