"""A client of the OCI distribution API (v1.1), for reading: manifests, blobs, referrers.

A registry is not trusted. Sizes, redirects, pages, retries and time are bounded; responses are never decompressed;
content is verified by digest; credentials go to the registry and its token service, never to a redirect. A 404 is a
result. Every other failure is `RegistryUnavailableError`, because "no signature" must mean that the registry said so.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urljoin, urlsplit

import aiohttp
import orjson

from webhook.core.kube.backoff import Backoff
from webhook.provenance import documents
from webhook.provenance.errors import MalformedError, RegistryUnavailableError
from webhook.provenance.registry.addresses import Resolver, host_fault
from webhook.provenance.registry.auth import Anonymous
from webhook.provenance.registry.source import (
    ACCEPTED,
    INDEX,
    MAX_BLOB,
    MAX_MANIFEST,
    MAX_REFERRERS,
    Descriptor,
    Manifest,
    check_digest,
    chosen,
    descriptors,
    is_digest,
    read_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.provenance.registry.auth import Credentials, Keychain
    from webhook.provenance.registry.source import Reference

_MAX_REDIRECTS: Final = 5
_MAX_PAGES: Final = 8
_MAX_TOKEN: Final = 64 * 1024
_ATTEMPTS: Final = 3
_MAX_WAIT: Final = 5.0
_MAX_RETRY_AFTER: Final = 3600.0
_TOKEN_SECONDS: Final = 60
_MAX_TOKENS: Final = 1000
_CONNECT_SECONDS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})
_CHALLENGE: Final = re.compile(r'([a-zA-Z]+)="([^"]*)"')
_HUB: Final = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How to reach one registry: ``mirrors`` (base URLs) first, then the registry itself unless ``mirrors_only``."""

    mirrors: tuple[str, ...] = ()
    mirrors_only: bool = False
    plain_http: bool = False
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class _Call:
    """One GET: what is accepted, how much of it, and with whose credentials."""

    image: Reference
    accept: str
    limit: int
    authorization: str = field(default="", repr=False)


class RegistryClient:
    """Use from one event loop, and `close` when done. ``seconds`` bounds each call with all of its retries."""

    def __init__(
        self,
        keychain: Keychain | None = None,
        endpoints: Mapping[str, Endpoint] | None = None,
        *,
        seconds: float = 20.0,
    ) -> None:
        self.keychain = keychain or Anonymous()
        self._endpoints = endpoints or {}
        self._exempt = frozenset(_hosts(self._endpoints))
        self._seconds = seconds
        self._session: aiohttp.ClientSession | None = None
        self._tokens: dict[tuple[str, str, str], tuple[float, str]] = {}

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def manifest(self, image: Reference, reference: str) -> Manifest | None:
        """Return the manifest of a tag or digest, or None if the registry does not have it."""
        response = await self._get(image, f"manifests/{reference}", ", ".join(ACCEPTED), MAX_MANIFEST)
        if response is None:
            return None
        digest = reference if is_digest(reference) else ""
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        return read_manifest(response.body, digest, media_type)

    async def blob(self, image: Reference, descriptor: Descriptor) -> bytes:
        """Return a blob. Raises `MalformedError` if it is too large and `TamperedError` for another digest."""
        if descriptor.size > MAX_BLOB:
            raise MalformedError(f"a blob is larger than {MAX_BLOB} bytes")
        response = await self._get(image, f"blobs/{descriptor.digest}", "*/*", MAX_BLOB)
        if response is None:
            raise RegistryUnavailableError("the registry does not have a blob that a manifest names")
        check_digest(response.body, descriptor.digest, "the blob")
        return response.body

    async def referrers(
        self, image: Reference, digest: str, artifacts: tuple[str, ...] = ("",)
    ) -> tuple[Descriptor, ...]:
        """Return the referrers of a digest: by the API, or by its fallback tag (distribution-spec 1.1)."""
        result: list[Descriptor] = []
        path = f"referrers/{digest}"
        for _ in range(_MAX_PAGES):
            response = await self._get(image, path, INDEX, MAX_MANIFEST)
            if response is None:
                break
            page = documents.parse(response.body, "the list of referrers", MAX_MANIFEST)
            if not isinstance(page.get("manifests"), list):
                break
            result += descriptors(page["manifests"], "manifests")
            link = re.fullmatch(r"<([^>]{1,2048})>;\s*rel=\"?next\"?", response.headers.get("Link", ""))
            if link is None or len(chosen(result, artifacts)) >= MAX_REFERRERS:
                return chosen(result, artifacts)
            path = link[1]
        if result:
            return chosen(result, artifacts)
        fallback = await self.manifest(image, digest.replace(":", "-", 1))
        return chosen(fallback.children, artifacts) if fallback is not None else ()

    async def _get(self, image: Reference, path: str, accept: str, limit: int) -> _Response | None:
        """Return the response of the first base that has the path, or None if the registry does not have it."""
        endpoint = self._endpoints.get(image.registry, Endpoint())
        problem: RegistryUnavailableError | None = None
        bases = [*endpoint.mirrors]
        if not (endpoint.mirrors_only and bases):
            host = _HUB if image.registry == "docker.io" else image.registry
            bases.append(f"{'http' if endpoint.plain_http else 'https'}://{host}")
        for base in bases:
            call = _Call(image, accept, limit)
            try:
                async with asyncio.timeout(self._seconds):
                    response = await self._attempts(f"{base}/v2/{image.repository}/", path, call, endpoint)
            except TimeoutError:
                problem = RegistryUnavailableError(
                    f"the registry {image.registry} did not respond within {self._seconds:g} seconds"
                )
            except RegistryUnavailableError as error:
                problem = error
            else:
                if response is not None:
                    return response
                # The registry itself comes last, and its 404 settles the question. That of a mirror does not.
                problem = problem if endpoint.mirrors_only else None
        if problem is not None:
            raise problem
        return None

    async def _attempts(self, base: str, path: str, call: _Call, endpoint: Endpoint) -> _Response | None:
        backoff = Backoff(first=0.2, most=2.0)
        start = time.monotonic()
        challenged = False
        url = urljoin(base, path)
        if _origin(url) != _origin(base):
            raise RegistryUnavailableError("the registry links to another host")
        scope = (_origin(base), call.image.repository)
        call.authorization = self._token(*scope)
        for attempt in range(_ATTEMPTS + 1):
            try:
                response = await self._follow(url, call, endpoint)
            except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
                reason = f"cannot reach the registry {call.image.registry}: {_reason(error)}"
                failure = RegistryUnavailableError(reason)
            else:
                if response.status == 200:
                    return response
                if response.status == 404:
                    return None
                if response.status == 401 and not challenged:
                    challenged = True
                    call.authorization = await self._authorize(response, base, call, endpoint)
                    continue
                failure = _failure(response, call.image.registry)
                if response.status not in _RETRIED:
                    raise failure
            wait = max(backoff.next(), failure.retry_after)
            if attempt >= _ATTEMPTS - 1 or wait > min(_MAX_WAIT, self._seconds - (time.monotonic() - start)):
                raise failure
            await asyncio.sleep(wait)
        raise RegistryUnavailableError(f"the registry {call.image.registry} rejects the credentials")

    async def _follow(self, url: str, call: _Call, endpoint: Endpoint) -> _Response:
        """Send a GET and follow redirects. The credentials go to the first origin only."""
        first = _origin(url)
        for _ in range(_MAX_REDIRECTS + 1):
            headers = {"Accept": call.accept, "Accept-Encoding": "identity"}
            if call.authorization and _origin(url) == first:
                headers["Authorization"] = call.authorization
            response = await self._send(url, headers, call.limit, endpoint)
            if response.status not in _REDIRECTS:
                return response
            target = urljoin(url, response.headers.get("Location", ""))
            if urlsplit(target).scheme != "https" and not (
                urlsplit(url).scheme == "http" and urlsplit(target).scheme == "http"
            ):
                raise RegistryUnavailableError("the registry redirects to a URL that is not HTTPS")
            url = target
        raise RegistryUnavailableError(f"the registry redirects more than {_MAX_REDIRECTS} times")

    async def _send(self, url: str, headers: Mapping[str, str], limit: int, endpoint: Endpoint) -> _Response:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._seconds, connect=_CONNECT_SECONDS)
            self._session = aiohttp.ClientSession(
                timeout=timeout,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(resolver=Resolver(self._exempt)),
            )
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            host = ""
        fault = "" if host in self._exempt else host_fault(host)
        if fault or not host:
            raise RegistryUnavailableError(fault or "the registry links to a URL without a host")
        tls: ssl.SSLContext | bool = endpoint.tls if endpoint.tls is not None else True
        async with self._session.get(url, headers=headers, allow_redirects=False, ssl=tls) as response:
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise RegistryUnavailableError(
                    "the registry sends compressed content, which was not requested"
                )
            maximum = limit if response.status == 200 else _MAX_TOKEN
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > maximum:
                    if response.status != 200:
                        break
                    raise MalformedError(f"the registry sends more than {limit} bytes")
            return _Response(response.status, response.headers, bytes(body))

    # Authorization

    def _token(self, origin: str, repository: str) -> str:
        cached = self._tokens.get((origin, repository, ""))
        return cached[1] if cached is not None and cached[0] > time.monotonic() else ""

    async def _authorize(self, response: _Response, base: str, call: _Call, endpoint: Endpoint) -> str:
        """Answer the challenge of a 401: Basic, or Bearer with a token from the token service."""
        challenge = response.headers.get("WWW-Authenticate", "")[:4096]
        scheme, _, rest = challenge.partition(" ")
        credentials = await self.keychain.find(call.image.registry, call.image.repository)
        if scheme.lower() == "basic":
            if credentials is None:
                raise RegistryUnavailableError(f"the registry {call.image.registry} requires credentials")
            return credentials.basic()
        if scheme.lower() != "bearer":
            raise RegistryUnavailableError(
                f"the registry {call.image.registry} requires an unknown authorization"
            )
        parameters = {key.lower(): value for key, value in _CHALLENGE.findall(rest)}
        token, seconds = await self._exchange(parameters, credentials, base, call, endpoint)
        if len(self._tokens) >= _MAX_TOKENS:
            self._tokens.clear()
        place = (_origin(base), call.image.repository, "")
        self._tokens[place] = (time.monotonic() + max(seconds - 10, 0), f"Bearer {token}")
        return f"Bearer {token}"

    async def _exchange(
        self,
        parameters: Mapping[str, str],
        credentials: Credentials | None,
        base: str,
        call: _Call,
        endpoint: Endpoint,
    ) -> tuple[str, float]:
        """Return a token and the seconds that it is valid (distribution, docs/spec/auth/token.md)."""
        realm = urljoin(base, parameters.get("realm", ""))
        if urlsplit(realm).scheme != "https" and not (
            urlsplit(base).scheme == "http" and urlsplit(realm).scheme == "http"
        ):
            raise RegistryUnavailableError("the token service of the registry is not HTTPS")
        query = {
            "scope": f"repository:{call.image.repository}:pull",
            **({"service": parameters["service"]} if "service" in parameters else {}),
        }
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if credentials is not None and not credentials.user:
            # An identity token is exchanged by POST (docs/spec/auth/oauth.md); as a bearer it serves the others.
            headers["Authorization"] = f"Bearer {credentials.secret}"
        elif credentials is not None:
            headers["Authorization"] = credentials.basic()
        separator = "&" if urlsplit(realm).query else "?"
        try:
            response = await self._send(
                f"{realm}{separator}{urlencode(query)}", headers, _MAX_TOKEN, endpoint
            )
        except (aiohttp.ClientError, OSError) as error:
            reason = f"cannot reach the token service of the registry: {_reason(error)}"
            raise RegistryUnavailableError(reason) from error
        if response.status != 200:
            raise _failure(response, call.image.registry)
        try:
            answer: Any = orjson.loads(response.body)
        except orjson.JSONDecodeError as error:
            raise RegistryUnavailableError("the token service of the registry sends no JSON") from error
        answer = answer if isinstance(answer, dict) else {}
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise RegistryUnavailableError("the token service of the registry sends no token")
        seconds = answer.get("expires_in")
        return token, float(seconds) if isinstance(seconds, int) and seconds > 0 else float(_TOKEN_SECONDS)


def _hosts(endpoints: Mapping[str, Endpoint]) -> Iterator[str]:
    """Yield the hosts that an admin configured: registries and their mirrors."""
    for registry, endpoint in endpoints.items():
        yield urlsplit(f"//{registry}").hostname or ""
        for mirror in endpoint.mirrors:
            yield urlsplit(mirror).hostname or ""


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:200]


def _failure(response: _Response, registry: str) -> RegistryUnavailableError:
    if response.status == 429:
        seconds = _retry_after(response.headers.get("Retry-After", ""))
        return RegistryUnavailableError(f"the registry {registry} limits the rate of requests (429)", seconds)
    if response.status in (401, 403):
        return RegistryUnavailableError(
            f"the registry {registry} rejects the credentials ({response.status})"
        )
    return RegistryUnavailableError(
        f"the registry {registry} responded with status {response.status}",
        _retry_after(response.headers.get("Retry-After", "")),
    )


def _retry_after(value: str) -> float:
    """Return the seconds of a Retry-After header: a number or a date (RFC 9110, section 10.2.3)."""
    if value.isascii() and value.isdecimal():
        return min(float(value[:9]), _MAX_RETRY_AFTER)
    try:
        seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER)
