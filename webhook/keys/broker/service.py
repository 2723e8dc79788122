"""The broker: decides at the moment of release, with everything read anew, and hands keys to nobody but the agent.

It holds no state that another replica would need. What it decides by are the pure functions beside it; here is the
order of questions, who is asked, and the audit of every answer. Keys exist in here between the key service's
answer and the encryption to the agent's one-time key, and are wiped then.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
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
    TOKEN,
)
from webhook.core.admission.provider import NotReadyError, UnresolvedError, evaluate
from webhook.core.injection.sidecar import AGENT
from webhook.keys.broker import attestation, caller, challenge
from webhook.keys.broker.protocol import MAX_TOKEN, Challenge, Lease, Released
from webhook.keys.broker.refusal import RefusedError, UnavailableError
from webhook.keys.broker.release import admission_of, judge
from webhook.keys.envelope import seal_keys
from webhook.keys.errors import KmsError, KmsUnavailableError
from webhook.keys.kms import KeyContext, Patience, open_kms
from webhook.keys.sealed.streaming import KEY_SIZE
from webhook.keys.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from webhook.api.broker import BrokerSettings
    from webhook.api.modelweights import ModelWeights, WrappedKey
    from webhook.core.admission.provider import SnapshotProvider
    from webhook.core.kube.fields import Document
    from webhook.keys.broker.caller import Caller
    from webhook.keys.broker.challenge import Challenges
    from webhook.keys.broker.protocol import ChallengeRequest, ReleaseRequest, RenewRequest
    from webhook.keys.broker.rate_limits import Limits
    from webhook.keys.kms import GuardedKms

# Parts of a request's time: what it may take in all, to end with a sentence still, and what one key service may.
_WHOLE, _KMS = 0.9, 0.5


class ClusterView(Protocol):
    """What the broker reads from the cluster at each release, never from a cache. All raise `UnavailableError`."""

    async def review_token(self, question: Document) -> Document:
        """Send a TokenReview; the same object with its status."""

    async def pod(self, namespace: str, name: str) -> Document | None:
        """A pod with its status, or None where there is none."""

    async def webhook_faults(self) -> tuple[str, ...]:
        """How the webhook configurations differ from what they should be; empty: they do not."""


class IssuerKeys(Protocol):
    """Where issuers' key sets come from; see `webhook.keys.broker.jwks.KeySets`."""

    async def get(self, url: str, key_ids: frozenset[str]) -> Mapping[str, Any]:
        """A key set. Raises `UnavailableError`."""


class Broker:
    """One replica. ``audit`` gets one event for each release, renewal and refusal, without any secret in it."""

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
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._cluster, self._issuers = source, cluster, issuers
        self._challenges, self._limits, self._settings = challenges, limits, settings
        self._audit, self._now, self._clock = audit, now, clock
        self._services: dict[str, GuardedKms] = {}

    def challenge(self, request: ChallengeRequest) -> Challenge:
        """A nonce for one agent key."""
        public_key = base64.b64decode(request.public_key)
        nonce = self._challenges.issue(public_key, self._now().timestamp())
        return Challenge(nonce=nonce, expires_in=challenge.LIFETIME)

    async def release(self, token: str, request: ReleaseRequest) -> Released:
        """The keys of one model for the pod that the token is bound to.

        Raises:
            RefusedError: no, and why.
            UnavailableError: it could not be decided.
        """
        event: dict[str, Any] = {"event": "key.release", "model": request.model}
        until = asyncio.get_running_loop().time() + _WHOLE * self._settings.request_timeout_seconds
        with self._audited(event):
            public_key = base64.b64decode(request.public_key)
            self._challenges.check(request.nonce, public_key, self._now().timestamp())
            who, pod, ends = await self._decide(token, request.model, event)
            self._limits.spend(request.nonce, self._clock(), challenge.LIFETIME + challenge.SKEW)
            model = self._model(request.model)
            await self._attest(model, request)
            starts, lease_seconds = caller.agent_starts(pod, AGENT), self._settings.lease_seconds
            self._limits.release(who.uid, request.model, starts, self._clock(), lease_seconds)
            try:
                encrypted = await self._sealed(model, public_key, request, until)
            except BaseException:
                self._limits.not_released(who.uid, request.model)
                raise
            event["keys"] = [key.id for key in model.spec.keys]
            lease = self._lease(ends, model)
            event["until"] = lease.grant_ends
            return Released(encrypted=base64.b64encode(encrypted).decode(), lease=lease)

    async def renew(self, token: str, request: RenewRequest) -> Lease:
        """More time with keys released before, where the same questions still have the same answers.

        Raises:
            RefusedError: no, and why: the keys must be wiped.
            UnavailableError: it could not be decided; the lease goes on as it was.
        """
        event: dict[str, Any] = {"event": "key.renewal", "model": request.model}
        with self._audited(event):
            _, _, ends = await self._decide(token, request.model, event)
            lease = self._lease(ends, self._model(request.model))
            event["until"] = lease.grant_ends
            return lease

    async def close(self) -> None:
        """Close the key services."""
        services, self._services = self._services, {}
        for kms in services.values():
            await kms.close()

    async def _decide(
        self, token: str, model: str, event: dict[str, Any]
    ) -> tuple[Caller, Document, datetime]:
        if not token or len(token) > MAX_TOKEN:
            raise RefusedError(TOKEN, "the request carries no pod token")
        who = caller.caller_of(await self._cluster.review_token(caller.token_review(token)))
        event |= {
            "namespace": who.namespace,
            "pod": who.pod,
            "uid": who.uid,
            "serviceAccount": who.service_account,
            "node": who.node,
            "credential": who.credential,
        }
        self._limits.request(who.uid, model, self._clock())
        pod = await self._cluster.pod(who.namespace, who.pod)
        caller.check_pod(who, pod)
        faults = await self._cluster.webhook_faults()
        if faults:
            raise RefusedError(
                INTEGRITY, f"admission is not guarded as it should be, so no key leaves: {faults[0]}"
            )
        document = pod or {}
        return who, document, await self._judge(who, document, model)

    async def _judge(self, who: Caller, pod: Document, model: str) -> datetime:
        request = admission_of(who, pod)
        try:
            end, _ = await evaluate(
                lambda fetched: judge(who, request, model, self._source.snapshot(), fetched, self._now()),
                self._source.fetch,
            )
        except (NotReadyError, UnresolvedError) as error:
            raise UnavailableError(CLUSTER_UNAVAILABLE, str(error)) from None
        return end

    def _model(self, name: str) -> ModelWeights:
        try:
            return self._source.snapshot().models[name]
        except (KeyError, NotReadyError):
            raise UnavailableError(
                CLUSTER_UNAVAILABLE, f'model "{name}" was removed in this moment'
            ) from None

    async def _attest(self, model: ModelWeights, request: ReleaseRequest) -> None:
        wanted = model.spec.attestation
        if not wanted.required:
            return
        if not wanted.issuer:
            raise RefusedError(
                BAD_REQUEST, f'model "{request.model}" asks for attestation and names no issuer'
            )
        url = wanted.jwks_url or f"{wanted.issuer.rstrip('/')}/.well-known/jwks.json"
        keys = await self._issuers.get(url, _key_ids(request.attestation))
        nonce, now = challenge.evidence_nonce(request.nonce), self._now().timestamp()
        claims = attestation.verify(request.attestation, keys, wanted.issuer, nonce, now)
        attestation.check_rule(attestation.compile_rule(wanted.rule), claims)

    async def _sealed(
        self, model: ModelWeights, public_key: bytes, request: ReleaseRequest, until: float
    ) -> bytes:
        opened: dict[str, Secret] = {}
        asked = ""
        try:
            async with asyncio.timeout_at(until):
                for key in model.spec.keys:
                    asked = key.kms
                    opened[key.id] = await self._unwrap(model.metadata.name, key)
            return seal_keys(opened, public_key, request.nonce, request.model)
        except TimeoutError:
            raise UnavailableError(
                KMS_UNAVAILABLE, f"{asked} did not answer in the time of a request"
            ) from None
        except ValueError:
            raise RefusedError(BAD_REQUEST, "the agent's public key cannot be encrypted to") from None
        finally:
            for secret in opened.values():
                secret.wipe()

    async def _unwrap(self, model: str, key: WrappedKey) -> Secret:
        try:
            wrapped = base64.b64decode(key.wrapped, validate=True)
            if key.kms not in self._services:
                self._services[key.kms] = open_kms(
                    key.kms,
                    production=self._settings.production,
                    patience=patience_within(_KMS * self._settings.request_timeout_seconds),
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
            raise RefusedError(NO_KEY, f'key "{key.id}" of model "{model}" is no data key')
        return secret

    def _lease(self, ends: datetime, model: ModelWeights) -> Lease:
        left = int((ends - self._now()).total_seconds())
        seconds = max(min(self._settings.lease_seconds, left), 1)
        renew = max(min(self._settings.renew_seconds, seconds // 2), 1)
        grant_ends = "" if ends.year == datetime.max.year else ends.replace(microsecond=0).isoformat()
        return Lease(
            seconds=seconds,
            renew_after=renew,
            grant_ends=grant_ends,
            authorities=self._authorities(),
            keys=tuple(key.id for key in model.spec.keys),
        )

    def _authorities(self) -> tuple[str, ...]:
        try:
            return known(self._source.snapshot().settings.injection.ca_bundle)
        except NotReadyError:
            return ()

    @contextmanager
    def _audited(self, event: dict[str, Any]) -> Iterator[None]:
        """Write one event when the block ends, whichever way it ends."""
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


def patience_within(seconds: float) -> Patience:
    """Patience with a key service that is at its end within so many seconds, but for pauses of a second together."""
    usual = Patience()
    call = min(usual.call, seconds)
    return replace(usual, call=call, attempts=min(usual.attempts, int(seconds / call)))


def _key_ids(evidence: Any) -> frozenset[str]:
    """The key ids that the tokens of a bundle name, read without believing them; empty where it is none."""
    tokens: list[Any] = []
    match evidence:
        case [["JWT", overall], dict(devices)]:
            tokens = [overall, *list(devices.values())[: attestation.MAX_TOKENS]]
    found = set()
    for token in tokens:
        try:
            found.add(str(jwt.get_unverified_header(token).get("kid")))
        except (PyJWTError, TypeError, ValueError, AttributeError):
            continue
    return frozenset(found)
