"""Who may query /validate and /mutate.

The webhook answers for the identity that a review names, so a client that may send reviews can learn who is allowed to
do what. A caller therefore proves that it is the API server: by a client certificate, by the token of KEP-6060 (from
Kubernetes 1.37), or, weaker, by an address of `callers.addresses`. If none of these is configured, all clients are
answered, and each address is limited. Other callers get the same response whatever they send.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from webhook.server.http.connections import address_group
from webhook.server.http.server import HttpError, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp import web

    from webhook.api.config import Config

    Review = Callable[[str, str], Awaitable[Mapping[str, Any]]]

_MAX_ADDRESSES: Final = 16_384
_MAX_TOKENS: Final = 256
_MAX_TOKEN_BYTES: Final = 16_384
# Shorter than the shortest lifetime of a token, so that a revoked one is noticed.
_TOKEN_SECONDS: Final = 60.0
_FAILURE_SECONDS: Final = 5.0
_PREFIX: Final = "authentication.kubernetes.io/"
_CONFIGURATIONS: Final = tuple(
    f"{_PREFIX}{kind}webhookconfiguration-name" for kind in ("mutating", "validating")
)


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller of a review. ``authenticated``: by certificate; ``token`` is to be verified before the evaluation."""

    authenticated: bool = False
    token: str = ""


class Callers:
    """Decides about callers as the configuration requires."""

    def __init__(self, config: Config) -> None:
        callers = config.callers
        self._certificate = bool(config.tls.client_ca)
        self._names = frozenset(config.tls.client_names)
        self._token = bool(callers.token_configurations)
        self._addresses = bool(callers.addresses)
        self._open = callers.allow_unauthenticated or not (
            (self._certificate and callers.require_certificate) or self._token or self._addresses
        )
        self._rates = AddressRates(callers.requests_per_second)
        self.rejected = 0
        self.limited = 0

    def check(self, request: web.BaseRequest, *, listed: bool) -> Caller:
        """Return the caller; ``listed``: its address is one of `callers.addresses`. Raises `HttpError` 403 and 429."""
        protocol = request.protocol
        if self._certificate and self._has_certificate(request):
            if isinstance(protocol, Protocol):
                protocol.authenticated()
            return Caller(authenticated=True)
        if self._token:
            kind, _, token = request.headers.get("Authorization", "").partition(" ")
            if kind.lower() == "bearer" and token and len(token) <= _MAX_TOKEN_BYTES:
                return Caller(token=token.strip())
        if self._addresses and listed:
            return Caller()
        if not self._open:
            self.rejected += 1
            raise HttpError(403, "only the API server may send reviews")
        if not self._rates.take(request.remote or ""):
            self.limited += 1
            raise HttpError(429, "too many reviews from this address", {"Retry-After": "1"})
        return Caller()

    def _has_certificate(self, request: web.BaseRequest) -> bool:
        """Whether the client has a certificate of the CA, which the handshake has verified, with one of the names."""
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        if not certificate:
            return False
        return not self._names or not self._names.isdisjoint(_names(certificate))


class AddressRates:
    """Token buckets by address: ``rate`` requests a second, and twice as many at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> bool:
        """Take one request of an address; False if it has none left."""
        now, group = time.monotonic(), address_group(address)
        tokens, since = self._buckets.pop(group, (2 * self._rate, now))
        tokens = min(2 * self._rate, tokens + (now - since) * self._rate)
        self._buckets[group] = (tokens - 1 if tokens >= 1 else tokens, now)
        while len(self._buckets) > _MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return tokens >= 1


class TokenVerifier:
    """Verifies the API server's token (KEP-6060) by a TokenReview; ``review`` returns its status for an audience.

    The token is bound to one of our webhook configurations and to this path of our Service, so no other webhook can
    use a token that it received.
    """

    def __init__(self, review: Review, configurations: list[str], audiences: Mapping[str, list[str]]) -> None:
        self._review = review
        self._configurations = frozenset(configurations)
        self._audiences = audiences
        self._results: OrderedDict[bytes, tuple[bool, float]] = OrderedDict()
        self._pending: dict[bytes, asyncio.Task[bool]] = {}

    async def verify(self, token: str, path: str, group: str) -> bool:
        """Whether the API server sent the token to this path, for reviews of this API group."""
        key = hashlib.sha256(f"{path}\0{group}\0{token}".encode()).digest()
        result = self._results.get(key)
        if result is not None and result[1] > time.monotonic():
            return result[0]
        task = self._pending.get(key)
        if task is None:
            task = self._pending[key] = asyncio.create_task(self._verify(key, token, path, group))
            task.add_done_callback(lambda _: self._pending.pop(key, None))
        return await asyncio.shield(task)

    async def _verify(self, key: bytes, token: str, path: str, group: str) -> bool:
        verified = False
        for audience in self._audiences.get(path, []):
            status = await self._review(token, audience)
            if self._is_ours(status, audience, group):
                verified = True
                break
        seconds = _TOKEN_SECONDS if verified else _FAILURE_SECONDS
        self._results[key] = (verified, time.monotonic() + seconds)
        while len(self._results) > _MAX_TOKENS:
            self._results.popitem(last=False)
        return verified

    def _is_ours(self, status: Mapping[str, Any], audience: str, group: str) -> bool:
        if status.get("authenticated") is not True or audience not in (status.get("audiences") or []):
            return False
        extra = (status.get("user") or {}).get("extra") or {}
        names = [name for key in _CONFIGURATIONS for name in extra.get(key) or []]
        groups = [each for key, each in extra.items() if key.endswith("admissionReviewAPIGroups")]
        attested = {item for each in groups for item in each}
        return len(names) == 1 and names[0] in self._configurations and bool(attested & {"*", group})


def _names(certificate: Mapping[str, object]) -> set[str]:
    """Return the common names and DNS names of a certificate as the ssl module returns it."""
    names: set[str] = set()
    subject = certificate.get("subject", ())
    alternatives = certificate.get("subjectAltName", ())
    for part in subject if isinstance(subject, tuple) else ():
        names.update(value for kind, value in part if kind == "commonName")
    names.update(value for kind, value in alternatives if kind == "DNS")  # type: ignore[attr-defined]
    return names
