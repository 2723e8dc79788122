"""What is served where: /mutate and /validate for the API server, the rest for those who watch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aiohttp import web

from webhook.core.kube.review import MAX_REVIEW_BYTES, BadReviewError
from webhook.server.http.server import HttpError, Route, json_body, require_json, text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Protocol

    from webhook.server.http.health import Health
    from webhook.server.http.server import Call

    class Exposition(Protocol):
        """What is shown at /metrics."""

        def render(self, accept: str) -> tuple[bytes, str]:
            """The text of all metrics, and its content type, for an ``Accept`` header."""

    class Answer(Protocol):
        """How `AdmissionService` answers a review."""

        def __call__(
            self, body: bytes, patience: float, *, trusted_caller: bool, parent: str
        ) -> Awaitable[bytes]:
            """The bytes that answer, within ``patience`` seconds. ``parent`` is the trace they belong to, or empty."""


# As long as an API server waits where a webhook configuration does not say (admissionregistration.k8s.io/v1).
DEFAULT_PATIENCE = 10.0
_GET = frozenset({"GET", "HEAD"})
_POST = frozenset({"POST"})
_SECONDS = re.compile(r"([0-9]{1,4})s")


def review_routes(
    mutate: Answer, validate: Answer, is_trusted: Callable[[web.BaseRequest], bool], *, traced: bool = False
) -> dict[str, Route]:
    """The routes for the API server. ``traced``: pass on which trace a review belongs to."""
    return {
        path: Route(_POST, _review(answer, is_trusted, traced=traced), MAX_REVIEW_BYTES)
        for path, answer in (("/validate", validate), ("/mutate", mutate))
    }


def watch_routes(health: Health, metrics: Exposition) -> dict[str, Route]:
    """The routes for probes and Prometheus."""

    async def healthz(call: Call) -> web.Response:
        del call
        return text(200, "ok")

    async def readyz(call: Call) -> web.Response:
        del call
        trouble = health.trouble()
        return text(200, "ready") if trouble is None else text(503, f"not ready: {trouble}")

    async def scrape(call: Call) -> web.Response:
        body, content_type = metrics.render(call.request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    return {"/healthz": Route(_GET, healthz), "/readyz": Route(_GET, readyz), "/metrics": Route(_GET, scrape)}


def caller_check(client_ca: str, client_names: list[str]) -> Callable[[web.BaseRequest], bool]:
    """Whether a request comes from the API server: by a certificate of ``client_ca`` that carries one of the names.

    The handshake has verified the certificate already; without names any certificate of that authority will do.
    """
    names = frozenset(client_names)

    def is_trusted(request: web.BaseRequest) -> bool:
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if client_ca and transport is not None else None
        if not certificate:
            return False
        return not names or not names.isdisjoint(_names(certificate))

    return is_trusted


def _review(
    answer: Answer, is_trusted: Callable[[web.BaseRequest], bool], *, traced: bool
) -> Callable[[Call], Awaitable[web.Response]]:
    async def handle(call: Call) -> web.Response:
        request = call.request
        require_json(request)
        parent = request.headers.get("traceparent", "") if traced else ""
        patience = _patience(call.target.query)
        try:
            return json_body(
                await answer(call.body, patience, trusted_caller=is_trusted(request), parent=parent)
            )
        except BadReviewError as error:
            raise HttpError(400, " ".join(str(error).split())) from None

    return handle


def _patience(query: Mapping[str, str]) -> float:
    """The seconds the API server waits, as it says in the query (k8s.io/client-go rest.Request.Timeout)."""
    match = _SECONDS.fullmatch(query.get("timeout", ""))
    return float(match[1]) if match else DEFAULT_PATIENCE


def _names(certificate: Mapping[str, object]) -> set[str]:
    """The common names and DNS names of a certificate as the ssl module gives it."""
    names: set[str] = set()
    subject = certificate.get("subject", ())
    alternatives = certificate.get("subjectAltName", ())
    for part in subject if isinstance(subject, tuple) else ():
        names.update(value for kind, value in part if kind == "commonName")
    names.update(value for kind, value in alternatives if kind == "DNS")  # type: ignore[attr-defined]
    return names
