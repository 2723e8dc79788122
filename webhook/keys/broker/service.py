"""The broker: evaluates each release on live data, and releases keys to no client except the agent.

It has no state that another replica would need. The decisions are pure functions in the modules beside it. This module
has their order, the calls to cluster, issuer and KMS, and the audit of every response. Keys exist here between the
response of the KMS and the encryption to the agent's one-time key, and are wiped then.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import jwt
from jwt.exceptions import PyJWTError

from webhook.api.authorities import known
from webhook.api.codes import (
    BAD_REQUEST,
    CLUSTER_UNAVAILABLE,
    INTEGRITY,
    KMS_DENIED,
    KMS_UNAVAILABLE,
    NO_KEY,
    OVER_EGRESS,
    TOKEN,
)
from webhook.core.access.record import Record, RecordError, withheld
from webhook.core.admission.provider import NotReadyError, UnresolvedError
from webhook.core.admission.provider import evaluate as evaluate_with_lookups
from webhook.core.egress.metering import excess
from webhook.core.injection.sidecar import AGENT
from webhook.keys.broker import attestation, caller, challenge, cpu_evidence
from webhook.keys.broker.protocol import MAX_TOKEN, Challenge, Lease, Released
from webhook.keys.broker.provenance import accepted_statement, proven_keys
from webhook.keys.broker.refusal import RefusedError, UnavailableError
from webhook.keys.broker.release import admission_of, check_running_images, evaluate, grant_of, grants_of
from webhook.keys.broker.unwrap_cache import UnwrapCache
from webhook.keys.envelope import check_public_key, seal_keys
from webhook.keys.errors import KmsError, KmsUnavailableError
from webhook.keys.kms import KeyContext, RetryPolicy, open_kms
from webhook.keys.secret import KEY_SIZE, Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from webhook.api.broker import BrokerSettings
    from webhook.api.modelweights import ModelWeights, WrappedKey
    from webhook.core.admission.provider import SnapshotProvider
    from webhook.core.kube.fields import Document
    from webhook.keys.broker.caller import PodIdentity
    from webhook.keys.broker.challenge import Challenges
    from webhook.keys.broker.protocol import ChallengeRequest, ReleaseRequest, RenewRequest
    from webhook.keys.broker.rate_limits import Limits
    from webhook.keys.kms import ResilientKms
    from webhook.keys.sealed.format.statement import Statement

_MAX_CALLS = 8  # concurrent calls to the KMS for one release
# Shares of a request's time: the whole release, so that it can still respond in time, and one call to a KMS.
_WHOLE, _KMS = 0.9, 0.5


class ClusterView(Protocol):
    """The uncached data that the broker reads from the cluster at each release. Methods raise `UnavailableError`."""

    async def review_token(self, question: Document) -> Document:
        """Send a TokenReview; returns the same object with its status."""

    async def pod(self, namespace: str, name: str) -> Document | None:
        """A pod with its status, or None if it does not exist."""

    async def webhook_faults(self) -> tuple[str, ...]:
        """How the webhook configurations differ from the expected ones; empty if they are intact."""

    async def access_record(self) -> tuple[bytes, str] | None:
        """The controller's record of access rules with its signature, or None if there is none."""


class ReleaseLog(Protocol):
    """Where the broker logs its decisions; see `webhook.app.audit.BrokerLog`."""

    async def release(self, event: Mapping[str, Any], seconds: float) -> str:
        """Log a release and return its receipt. Raises `UnavailableError` if it cannot be logged."""

    def check(self) -> None:
        """Raise `UnavailableError` if a renewal cannot be logged."""

    def record(self, event: Mapping[str, Any]) -> None:
        """Log any other event."""

    def gauges(self) -> dict[str, float | None]:
        """Return the figures of the log by the names of their metrics."""


class IssuerKeys(Protocol):
    """The source of issuers' key sets; see `webhook.keys.broker.jwks.KeySets`."""

    async def get(self, url: str, key_ids: frozenset[str]) -> Mapping[str, Any]:
        """A key set. Raises `UnavailableError`."""


class Broker:
    """One replica. ``audit`` receives one event for each release, renewal and refusal, without any secret in it."""

    def __init__(
        self,
        source: SnapshotProvider,
        cluster: ClusterView,
        issuers: IssuerKeys,
        challenges: Challenges,
        limits: Limits,
        settings: BrokerSettings,
        audit: Callable[[Mapping[str, Any]], None],
        *,
        release_log: ReleaseLog | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._cluster, self._issuers = source, cluster, issuers
        self._challenges, self._limits, self._settings = challenges, limits, settings
        self._audit, self._now, self._clock = audit, now, clock
        self._log = release_log
        self._record: tuple[tuple[bytes, str], Record] | None = None
        self._services: dict[str, ResilientKms] = {}
        self._cache = UnwrapCache(settings.unwrap_cache_seconds)

    @property
    def log_gauges(self) -> Callable[[], dict[str, float | None]] | None:
        """The reader of the audit log's figures; None without a log."""
        return self._log.gauges if self._log is not None else None

    def challenge(self, request: ChallengeRequest) -> Challenge:
        """Issue a nonce for one agent key.

        Raises:
            RefusedError: the public key is unusable.
        """
        public_key = _public_key(request.public_key)
        nonce = self._challenges.issue(public_key, self._now().timestamp())
        return Challenge(nonce=nonce, expires_in=challenge.LIFETIME)

    async def release(self, token: str, request: ReleaseRequest) -> Released:
        """Release the keys of one model to the pod that the token is bound to.

        Raises:
            RefusedError: the release is denied.
            UnavailableError: the broker cannot decide now.
        """
        event: dict[str, Any] = {"event": "key.release", "model": request.model}
        until = asyncio.get_running_loop().time() + _WHOLE * self._settings.request_timeout_seconds
        with self._audited(event):
            public_key = _public_key(request.public_key)
            self._challenges.check(request.nonce, public_key, self._now().timestamp())
            who, pod, ends = await self._decide(token, request.model, event)
            self._limits.spend(request.nonce, self._clock(), challenge.LIFETIME + challenge.SKEW)
            model = self._model(request.model)
            statement = accepted_statement(model)
            wrapped = proven_keys(model, statement, _requested(model, request.key_id))
            self._check_egress(who, pod, model, request.sent, event)
            await self._attest(model, request)
            starts, lease_seconds = caller.agent_starts(pod, AGENT), self._settings.lease_seconds
            self._limits.release(who.uid, request.model, starts, self._clock(), lease_seconds)
            try:
                keys = await self._unwrapped(model, wrapped, who.node, until)
            except BaseException:
                self._limits.not_released(who.uid, request.model)
                raise
            event["keys"] = [key.id for key in wrapped]
            lease = self._lease(ends, model, statement)
            event["until"] = lease.grant_ends
            bound = lease.canonical() if request.protocol > 1 else None
            try:
                # The release is in a signed checkpoint before the key leaves.
                receipt = await self._receipt(event, pod, lease, until)
                encrypted = seal_keys(keys, public_key, request.nonce, request.model, bound)
            except BaseException:
                self._limits.not_released(who.uid, request.model)
                raise
            finally:
                for key in keys.values():
                    key.wipe()
            return Released(encrypted=base64.b64encode(encrypted).decode(), lease=lease, receipt=receipt)

    async def renew(self, token: str, request: RenewRequest) -> Lease:
        """Renew the lease of released keys, if the release would still be allowed.

        Raises:
            RefusedError: the renewal is denied: the keys must be wiped.
            UnavailableError: the broker cannot decide now; the present lease continues.
        """
        event: dict[str, Any] = {"event": "key.renewal", "model": request.model}
        with self._audited(event):
            who, pod, ends = await self._decide(token, request.model, event)
            model = self._model(request.model)
            self._check_egress(who, pod, model, request.sent, event)
            lease = self._lease(ends, model, accepted_statement(model))
            event["until"] = lease.grant_ends
            event["seconds"] = lease.seconds
            if self._log is not None:
                self._log.check()
            return lease

    async def _receipt(self, event: dict[str, Any], pod: Document, lease: Lease, until: float) -> str:
        """Log the release before the key leaves, and return the receipt; empty without a log."""
        if self._log is None:
            return ""
        event["seconds"] = lease.seconds
        event["images"] = _images(pod)
        seconds = until - asyncio.get_running_loop().time()
        receipt = await self._log.release({**event, "result": "released"}, max(seconds, 0.1))
        event["receipt"] = True
        return receipt

    async def close(self) -> None:
        """Wipe cached keys and close the connections to the KMS."""
        self._cache.close()
        services, self._services = self._services, {}
        for kms in services.values():
            await kms.close()

    async def _decide(
        self, token: str, model: str, event: dict[str, Any]
    ) -> tuple[PodIdentity, Document, datetime]:
        if not token or len(token) > MAX_TOKEN:
            raise RefusedError(TOKEN, "the request has no pod token")
        who = caller.identity_of(await self._cluster.review_token(caller.token_review(token)))
        event |= {
            "namespace": who.namespace,
            "pod": who.pod,
            "uid": who.uid,
            "serviceAccount": who.service_account,
            "node": who.node,
            "credential": who.credential,
        }
        self._limits.pod(who.uid, self._clock())
        pod = await self._cluster.pod(who.namespace, who.pod)
        caller.check_pod(who, pod)
        event["zone"] = caller.zone_of(pod)
        faults = await self._cluster.webhook_faults()
        if faults:
            raise RefusedError(
                INTEGRITY,
                f"keys are not released because webhook configurations are missing or modified: {faults[0]}",
            )
        document = pod or {}
        ends = await self._evaluate(who, document, model)
        check_running_images(who, document, self._source.snapshot())
        await self._check_record(who, model)
        self._limits.model(model, self._clock())
        grant = grant_of(who, model, self._source.snapshot(), self._now())
        if grant is not None:
            event["grant"], event["subject"] = grant.request, grant.subject.kind
        return who, document, ends

    async def _check_record(self, who: PodIdentity, model: str) -> None:
        """Raise `UnavailableError` if access follows from rules that became weaker and are not accepted yet.

        Without it, a pod could receive a key after the rules were weakened without admission, and before the controller
        suspends its request.
        """
        stored = await self._cluster.access_record()
        snapshot = self._source.snapshot()
        verifier = snapshot.access.parser.verifier
        if stored is None or verifier is None or model not in snapshot.models:
            return
        try:
            if self._record is None or self._record[0] != stored:
                self._record = stored, Record.verified(*stored, verifier)
        except RecordError as error:
            raise UnavailableError(INTEGRITY, f"the record of access rules is invalid: {error}") from None
        grants = grants_of(who, model, snapshot, self._now())
        sensitivity = snapshot.models[model].spec.sensitivity
        if withheld(self._record[1], snapshot.access, model, sensitivity, grants, self._now()):
            raise UnavailableError(
                INTEGRITY,
                f'the access rules of model "{model}" became weaker, and the controller has not accepted them: if this '
                "persists, apply the earlier rules and then the new ones again, or confirm the request",
            )

    async def _evaluate(self, who: PodIdentity, pod: Document, model: str) -> datetime:
        request = admission_of(who, pod)
        try:
            expiry, _ = await evaluate_with_lookups(
                lambda fetched: evaluate(who, request, model, self._source.snapshot(), fetched, self._now()),
                self._source.fetch,
            )
        except (NotReadyError, UnresolvedError) as error:
            raise UnavailableError(CLUSTER_UNAVAILABLE, str(error)) from None
        return expiry

    def _model(self, name: str) -> ModelWeights:
        try:
            return self._source.snapshot().models[name]
        except (KeyError, NotReadyError):
            raise UnavailableError(
                CLUSTER_UNAVAILABLE, f'model "{name}" was deleted during the request'
            ) from None

    def _check_egress(
        self, who: PodIdentity, pod: Document, model: ModelWeights, sent: int | None, event: dict[str, Any]
    ) -> None:
        """Raise `RefusedError` if the pod sent more than the egress budget of the model allows."""
        if model.spec.egress is None:
            return
        if sent is not None:
            event["sent"] = sent
        try:
            settings = self._source.snapshot().settings.egress
        except NotReadyError as error:
            raise UnavailableError(CLUSTER_UNAVAILABLE, str(error)) from None
        why = excess(pod, sent, self._now(), settings)
        if why:
            raise RefusedError(OVER_EGRESS, f'{who} gets no key of model "{model.metadata.name}": {why}')

    async def _attest(self, model: ModelWeights, request: ReleaseRequest) -> None:
        required = model.spec.attestation
        if not required.required:
            return
        gpu, cpu = attestation.split(request.attestation)
        nonce, now = challenge.evidence_nonce(request.nonce), self._now().timestamp()
        claims = attestation.Claims()
        if required.cpu is not None:
            # First: it needs no call to the issuer.
            claims = replace(claims, cpu=cpu_evidence.verify(cpu, required.cpu, nonce, now))
        elif not required.issuer:
            raise RefusedError(
                BAD_REQUEST, f'model "{request.model}" requires attestation but names no issuer'
            )
        if required.issuer:
            url = required.jwks_url or f"{required.issuer.rstrip('/')}/.well-known/jwks.json"
            keys = await self._issuers.get(url, _key_ids(gpu))
            claims = replace(attestation.verify(gpu, keys, required.issuer, nonce, now), cpu=claims.cpu)
        attestation.check_rule(attestation.compile_rule(required.rule), claims)

    async def _unwrapped(
        self, model: ModelWeights, keys: tuple[WrappedKey, ...], node: str, until: float
    ) -> dict[str, Secret]:
        """The data keys by id, which the caller wipes. Several keys are unwrapped concurrently."""
        secrets: dict[str, Secret] = {}
        pending = {key.kms for key in keys}
        limit = asyncio.Semaphore(_MAX_CALLS)

        async def unwrap(key: WrappedKey) -> None:
            async with limit:
                secrets[key.id] = await self._cached(model.metadata.name, key, node)
                pending.discard(key.kms)

        calls = [asyncio.create_task(unwrap(key)) for key in keys]
        try:
            async with asyncio.timeout_at(until):
                await asyncio.gather(*calls)
        except BaseException as error:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            for secret in secrets.values():
                secret.wipe()
            if isinstance(error, TimeoutError):
                raise UnavailableError(
                    KMS_UNAVAILABLE, f"{min(pending, default='the KMS')} timed out"
                ) from None
            raise
        return secrets

    async def _cached(self, model: str, key: WrappedKey, node: str) -> Secret:
        scope = node if self._settings.unwrap_cache_scope == "node" else ""
        if self._settings.unwrap_cache_scope == "node" and not node:
            return await self._unwrap(model, key)
        digest = hashlib.sha256(key.wrapped.encode()).digest()
        return await self._cache.get(
            (model, key.id, key.kms, digest, scope), lambda: self._unwrap(model, key)
        )

    async def _unwrap(self, model: str, key: WrappedKey) -> Secret:
        try:
            wrapped = base64.b64decode(key.wrapped, validate=True)
            if key.kms not in self._services:
                self._services[key.kms] = open_kms(
                    key.kms,
                    production=self._settings.production,
                    policy=retry_policy_within(_KMS * self._settings.request_timeout_seconds),
                )
            secret = Secret(await self._services[key.kms].unwrap(wrapped, KeyContext(model, key.id)))
        except binascii.Error:
            raise RefusedError(NO_KEY, f'key "{key.id}" of model "{model}" is not base64') from None
        except KmsUnavailableError as error:
            raise UnavailableError(KMS_UNAVAILABLE, str(error)) from None
        except KmsError as error:
            raise RefusedError(KMS_DENIED, str(error)) from None
        if len(secret) != KEY_SIZE:
            secret.wipe()
            raise RefusedError(NO_KEY, f'key "{key.id}" of model "{model}" is not a data key')
        return secret

    def _lease(self, ends: datetime, model: ModelWeights, statement: Statement | None) -> Lease:
        remaining = int((ends - self._now()).total_seconds())
        seconds = max(min(self._settings.lease_seconds, remaining), 1)
        renew = max(min(self._settings.renew_seconds, seconds // 2), 1)
        grant_ends = "" if ends.year == datetime.max.year else ends.replace(microsecond=0).isoformat()
        return Lease(
            seconds=seconds,
            renew_after=renew,
            grant_ends=grant_ends,
            authorities=self._authorities(),
            keys=tuple(key.id for key in proven_keys(model, statement, tuple(model.spec.keys))),
            min_generation=model.spec.min_generation,
            # Readers open no other manifest than the one whose provenance was accepted.
            manifest_digest=statement.manifest if statement is not None else model.spec.manifest.digest,
            signers=tuple(model.spec.manifest.signers),
        )

    def _authorities(self) -> tuple[str, ...]:
        try:
            return known(self._source.snapshot().settings.injection.ca_bundle)
        except NotReadyError:
            return ()

    @contextmanager
    def _audited(self, event: dict[str, Any]) -> Iterator[None]:
        """Write one event when the block ends, however it ends."""
        result: dict[str, Any] = {"result": "released"}
        try:
            yield
        except (RefusedError, UnavailableError) as error:
            kind = "refused" if isinstance(error, RefusedError) else "unavailable"
            result = {"result": kind, "code": error.code, "message": str(error)}
            raise
        except BaseException as error:
            result = {"result": "error", "message": type(error).__name__}
            raise
        finally:
            self._audit({**event, **result})
            if self._log is not None and "receipt" not in event:
                self._log.record({**event, **result})


def retry_policy_within(seconds: float) -> RetryPolicy:
    """A retry policy for a KMS that gives up after so many seconds, apart from pauses of about a second."""
    usual = RetryPolicy()
    call = min(usual.call, seconds)
    return replace(usual, call=call, attempts=min(usual.attempts, int(seconds / call)))


def _images(pod: Document) -> list[str]:
    """Return the image digests that the kubelet reports for the pod's containers."""
    status = pod.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return sorted({str(item["imageID"]) for item in containers if item.get("imageID")})[:64]


def _public_key(text: str) -> bytes:
    raw = base64.b64decode(text)
    try:
        check_public_key(raw)
    except ValueError:
        raise RefusedError(BAD_REQUEST, "the agent's public key is invalid") from None
    return raw


def _requested(model: ModelWeights, key_id: str) -> tuple[WrappedKey, ...]:
    """The keys to unwrap: the one that the agent requests, or all of them."""
    if not key_id:
        return tuple(model.spec.keys)
    keys = tuple(key for key in model.spec.keys if key.id == key_id)
    if not keys:
        raise RefusedError(
            NO_KEY, f'model "{model.metadata.name}" has no key "{key_id}", but its files are sealed with it'
        )
    return keys


def _key_ids(evidence: Any) -> frozenset[str]:
    """The key ids that the tokens of a bundle name, unverified; empty if it is not a bundle."""
    tokens: list[Any] = []
    match evidence:
        case [["JWT", overall], dict(devices)]:
            tokens = [overall, *list(devices.values())[: attestation.MAX_TOKENS]]
    key_ids = set()
    for token in tokens:
        try:
            key_ids.add(str(jwt.get_unverified_header(token).get("kid")))
        except (PyJWTError, TypeError, ValueError, AttributeError):
            continue
    return frozenset(key_ids)
