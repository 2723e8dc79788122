"""Verify images under the trust rules of a snapshot: rules to trust, results to statements, work to bounds.

One image is verified once at a time, for all callers. A caller waits as long as it can afford. The verification
continues without it, and the next caller finds the result. What was verified about a digest stays true while its
registry is down, so the last result remains until the registry responds, the rule changes or its key expires.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import orjson

from webhook.core.images.describe import UNAVAILABLE, ImageAnswer
from webhook.core.images.statements import Statement
from webhook.core.kube.backoff import jittered
from webhook.provenance.errors import MalformedError, ProvenanceError, RegistryUnavailableError
from webhook.provenance.images import resolve, verify_image
from webhook.provenance.registry.source import Reference
from webhook.provenance.signatures import load_public_key
from webhook.provenance.trust import Identity, Trust, TrustedKey
from webhook.provenance.trusted_root import TrustedRoot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from webhook.api.images import ImageTrustSpec
    from webhook.core.images.describe import ImageQuery
    from webhook.provenance.images import ImageResult
    from webhook.provenance.registry.source import Source

_MAX_CACHED: Final = 10_000
_VERIFIED_SECONDS: Final = 3600.0
_REJECTED_SECONDS: Final = 60.0
_TAG_SECONDS: Final = 30.0
_FAILED_SECONDS: Final = 10.0
_MOST_FAILED_SECONDS: Final = 300.0
_WHOLE_SECONDS: Final = 120.0
_CONCURRENT: Final = 8
_PER_NAMESPACE: Final = 4
_MAX_PREDICATES: Final = 32 * 1024
_MAX_WAITING: Final = 1_000

log = logging.getLogger(__name__)


def trust_of(spec: ImageTrustSpec) -> Trust:
    """Return the trust of a rule. Raises `MalformedError` for a key, pattern or trusted root that cannot be used."""
    root = TrustedRoot.from_json(spec.trusted_root.encode()) if spec.trusted_root else None
    keys = tuple(
        TrustedKey(load_public_key(signer.key.encode()), signer.not_after)
        for signer in spec.signers
        if signer.key
    )
    identities = tuple(
        Identity(signer.issuer, signer.subject, signer.issuer_pattern, signer.subject_pattern)
        for signer in spec.signers
        if not signer.key
    )
    return Trust(keys, identities, root, spec.transparency_log)


def statement_of(result: ImageResult, now: datetime) -> Statement:
    """Return the statement about a result."""
    attestations: dict[str, list[object]] = {}
    size = 0
    for item in result.attestations:
        size += len(orjson.dumps(item.predicate))
        # The size of a statement is limited, so later predicates only state that they exist.
        predicate = item.predicate if size <= _MAX_PREDICATES else {"truncated": True}
        attestations.setdefault(item.type, []).append(predicate)
    signers = tuple(
        {"key": signer.key} if signer.key else {"issuer": signer.issuer, "subject": signer.subject}
        for signer in result.signers
    )
    return Statement(
        int(now.timestamp()), result.reason, result.message[:256], signers, attestations, result.platforms
    )


async def check(
    source: Source, reference: str, rules: Mapping[str, ImageTrustSpec], now: datetime
) -> ImageAnswer:
    """Resolve an image and verify it under each rule (by the hash of its trust). Never raises for an image."""
    try:
        image = Reference.parse(reference)
        if not rules:
            return ImageAnswer((await resolve(source, image)).digest)
        trusts, faults = _trusts(rules)
        results = await verify_image(source, image, list(trusts.values()), now)
    except ProvenanceError as error:
        return ImageAnswer(reason=error.code, message=str(error)[:256])
    statements = {key: statement_of(result, now) for key, result in zip(trusts, results, strict=True)}
    digest = results[0].digest if results else (await _digest(source, image))
    for key, fault in faults.items():
        statements[key] = Statement(
            int(now.timestamp()), fault.code, f"the trust rule is invalid: {fault}"[:256]
        )
    return ImageAnswer(digest, statements)


async def _digest(source: Source, image: Reference) -> str:
    try:
        return (await resolve(source, image)).digest
    except ProvenanceError:
        return image.digest


def _trusts(rules: Mapping[str, ImageTrustSpec]) -> tuple[dict[str, Trust], dict[str, MalformedError]]:
    trusts: dict[str, Trust] = {}
    faults: dict[str, MalformedError] = {}
    for key, spec in rules.items():
        try:
            trusts[key] = trust_of(spec)
        except MalformedError as fault:
            faults[key] = fault
    return trusts, faults


@dataclass(slots=True)
class _Entry:
    answer: ImageAnswer
    until: float
    failures: int = 0
    # The last answer of the registry about a digest: it outlasts a registry that is down.
    last: ImageAnswer | None = None


@dataclass(slots=True)
class ImageChecker:
    """Verify on demand, with a cache. ``source`` returns the registry with the credentials for one query."""

    source: Callable[[ImageQuery], Awaitable[Source]]
    _cache: OrderedDict[tuple[ImageQuery, frozenset[str]], _Entry] = field(default_factory=OrderedDict)
    _running: dict[tuple[ImageQuery, frozenset[str]], asyncio.Task[ImageAnswer]] = field(default_factory=dict)
    _shares: dict[str, tuple[asyncio.Semaphore, int]] = field(default_factory=dict)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_CONCURRENT))

    async def answer(
        self, query: ImageQuery, rules: Mapping[str, ImageTrustSpec], seconds: float, *, fresh: bool = False
    ) -> ImageAnswer:
        """Return what is known about an image within ``seconds``; the verification continues after them.

        ``fresh``: report a registry that is down, also if an earlier result is known.
        """
        last = None if fresh else self._last(query, rules)
        if last is not None and any(not statement.reason for statement in last.statements.values()):
            # A verified digest stays verified: the review need not wait for the registry.
            seconds = 0.0
        answer = await self._answer(query, rules, seconds)
        return last if answer.reason == UNAVAILABLE and last is not None else answer

    def _last(self, query: ImageQuery, rules: Mapping[str, ImageTrustSpec]) -> ImageAnswer | None:
        """Return the last result about a digest, unless a key has expired since."""
        entry = self._cache.get((query, frozenset(rules)))
        last = entry.last if entry is not None else None
        return last if last is not None and not _has_expired(last, rules) else None

    async def _answer(
        self, query: ImageQuery, rules: Mapping[str, ImageTrustSpec], seconds: float
    ) -> ImageAnswer:
        key = (query, frozenset(rules))
        entry = self._cache.get(key)
        if entry is not None and entry.until > time.monotonic():
            return entry.answer
        task = self._running.get(key)
        if task is None:
            if len(self._running) >= _MAX_CACHED:
                return ImageAnswer(reason=UNAVAILABLE, message="too many images wait for their registries")
            if self._shares.get(query.namespace, (None, 0))[1] >= _MAX_WAITING:
                message = f"too many images of namespace {query.namespace} wait for their registries"
                return ImageAnswer(reason=UNAVAILABLE, message=message)
            task = asyncio.create_task(self._verify(key, rules), name=f"verify {query.reference[:100]}")
            self._running[key] = task
        try:
            return await asyncio.wait_for(asyncio.shield(task), seconds)
        except TimeoutError:
            message = f"the registry did not respond within {seconds:.1f} seconds; the verification continues"
            return ImageAnswer(reason=UNAVAILABLE, message=message)

    async def close(self) -> None:
        """End the verifications."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _share(self, namespace: str) -> AsyncIterator[None]:
        """Wait for a slot of a namespace: slow registries of one tenant must leave slots to the others."""
        slots, users = self._shares.get(namespace, (asyncio.Semaphore(_PER_NAMESPACE), 0))
        self._shares[namespace] = (slots, users + 1)
        try:
            async with slots:
                yield
        finally:
            slots, users = self._shares.pop(namespace)
            if users > 1:
                self._shares[namespace] = (slots, users - 1)

    async def _verify(
        self, key: tuple[ImageQuery, frozenset[str]], rules: Mapping[str, ImageTrustSpec]
    ) -> ImageAnswer:
        query = key[0]
        retry = 0.0
        try:
            async with self._share(query.namespace), self._slots, asyncio.timeout(_WHOLE_SECONDS):
                source = await self.source(query)
                answer = await check(source, query.reference, rules, datetime.now(UTC))
        except (TimeoutError, OSError) as fault:
            answer = ImageAnswer(
                reason=UNAVAILABLE, message=f"the registry is too slow: {type(fault).__name__}"
            )
        except RegistryUnavailableError as fault:
            answer, retry = ImageAnswer(reason=UNAVAILABLE, message=str(fault)[:256]), fault.retry_after
        except Exception as fault:
            # It backs off as well: without an answer, each review would start the verification again.
            log.exception("internal error")
            message = f"cannot verify the image: {type(fault).__name__}"
            answer = ImageAnswer(reason=UNAVAILABLE, message=message)
        finally:
            self._running.pop(key, None)
        self._keep(key, answer, retry)
        return answer

    def _keep(self, key: tuple[ImageQuery, frozenset[str]], answer: ImageAnswer, retry: float) -> None:
        before = self._cache.get(key)
        failures = 0
        last = before.last if before is not None else None
        if answer.reason == UNAVAILABLE:
            failures = min((before.failures if before is not None else 0) + 1, 8)
            seconds = max(jittered(min(_FAILED_SECONDS * 2 ** (failures - 1), _MOST_FAILED_SECONDS)), retry)
        elif any(not item.reason for item in answer.statements.values()):
            seconds = _VERIFIED_SECONDS
        else:
            seconds = _REJECTED_SECONDS
        if "@" not in key[0].reference:
            seconds = min(seconds, _TAG_SECONDS)
        elif answer.statements:
            last = answer
        self._cache[key] = _Entry(answer, time.monotonic() + seconds, failures, last)
        self._cache.move_to_end(key)
        if len(self._cache) > _MAX_CACHED:
            self._cache.popitem(last=False)


def _has_expired(answer: ImageAnswer, rules: Mapping[str, ImageTrustSpec]) -> bool:
    """Whether a key has expired since an answer: its signatures without a time are invalid from then on."""
    now = time.time()
    checked = min((item.checked for item in answer.statements.values()), default=0)
    ends = (signer.not_after for spec in rules.values() for signer in spec.signers if signer.not_after)
    return any(checked <= end.timestamp() < now for end in ends)
