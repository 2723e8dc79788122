"""Manage Weightlock's own certificates: read Secrets and webhook configurations, plan the next step, perform it.

Every write must match the resource version of the read, so one of two concurrent controllers fails and reads again. The
key of a CA exists in one Secret and, while it signs, in this process. It is never logged.
"""

from __future__ import annotations

import base64
import logging
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from webhook.cluster.client.api import ApiError
from webhook.cluster.controller.secrets import (
    AUTHORITIES,
    CERTIFICATE,
    KEY,
    LIST,
    Secret,
    Secrets,
    serving_cert_of,
)
from webhook.core.certificates import bundle, store
from webhook.core.certificates.issue import make_serving
from webhook.core.certificates.model import Create, Issue, PublishCAs, RecordState, SetCABundle, State, Times
from webhook.core.certificates.planner import next_step
from webhook.core.integrity.protection import equal, without_bundles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.api.config import Certificates as Settings
    from webhook.api.config import Controller
    from webhook.cluster.client.api import KubeApi
    from webhook.core.certificates.model import Step
    from webhook.core.certificates.store import StoredCA
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey

# Clocks differ: certificates are valid from shortly before their creation.
_SLACK = timedelta(minutes=5)
# More than the steps of a first installation.
_STEPS = 24
_WATCH_SECONDS = 5.0
_OVERTAKEN = (409, 422)
_JSON_PATCH = "application/json-patch+json"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Read:
    """Everything that was read at one moment."""

    stored_cas: tuple[StoredCA, ...]
    foreign_cas: tuple[StoredCA, ...]
    authority: Secret
    pairs: tuple[Secret, ...]
    configurations: Mapping[ObjectKey, Document | None]
    view: State


@dataclass(slots=True)
class CertificateState:
    """The state after the last read. ``known`` are the ids of all CAs, None before the first read.

    ``since`` is when (monotonic) all webhook configurations first had a caBundle with Weightlock's CAs only.
    """

    known: frozenset[str] | None = None
    since: float | None = None
    trusted: str = ""
    expiries: dict[str, float] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    trouble: str = "certificates not read yet"


class Certificates:
    """Weightlock's own certificates. ``paths`` are the API paths of the ``expected`` webhook configurations.

    ``all_trusted`` are the ids of all CAs that were trusted at any time of this process.
    """

    def __init__(
        self,
        api: KubeApi,
        controller: Controller,
        settings: Settings,
        expected: Mapping[ObjectKey, Document],
        paths: Mapping[ObjectKey, str],
    ) -> None:
        self.kept = CertificateState()
        self.all_trusted: frozenset[str] = frozenset()
        self._api, self._secrets = api, Secrets(api, controller.namespace)
        self._settings, self._expected, self._paths = settings, expected, paths
        self._wanted = {
            pair.secret: frozenset(name.lower() for name in pair.names) for pair in settings.pairs
        }
        self._times = Times(
            authority=timedelta(seconds=settings.authority_seconds),
            authority_renew=timedelta(seconds=settings.authority_renew_seconds),
            leaf=timedelta(seconds=settings.leaf_seconds),
            leaf_renew=timedelta(seconds=settings.leaf_renew_seconds),
            propagation=timedelta(seconds=settings.propagation_seconds),
        )
        self._guarded = controller.restore
        self._next_check = 0.0

    async def reconcile(self) -> None:
        """Perform all due steps; an error is logged, and the next call retries."""
        if time.monotonic() < self._next_check:
            return
        try:
            for _ in range(_STEPS):
                read = await self._read()
                self._record(read)
                step = next_step(read.view, self._times, datetime.now(UTC))
                if step is None:
                    self._next_check = time.monotonic() + self._settings.check_seconds
                    break
                await self._do(step, read)
        except ApiError as error:
            if error.status not in _OVERTAKEN:
                self._report(f"cannot renew certificates: {error}")
            return
        self._report("")

    def in_force(self) -> frozenset[str] | None:
        """Return the ids of the CAs that caBundles may contain; None until they were in force for some seconds.

        A watch may still deliver an older configuration.
        """
        if self.kept.since is None or time.monotonic() < self.kept.since + _WATCH_SECONDS:
            return None
        return self.kept.known

    def with_bundles(self, expected: Document) -> Document:
        """Return a webhook configuration with the caBundles it should have."""
        encoded = base64.b64encode(self.kept.trusted.encode()).decode("ascii")
        return {
            **expected,
            "webhooks": [
                {**webhook, "clientConfig": {**webhook["clientConfig"], "caBundle": encoded}}
                for webhook in expected["webhooks"]
            ],
        }

    def _report(self, error: str) -> None:
        if error != self.kept.trouble and error:
            log.error("cannot renew certificates", extra={"fields": {"why": error}})
        self.kept.trouble = error

    def _record(self, read: _Read) -> None:
        authorities = read.view.authorities
        if not authorities:
            return
        self.kept.known = frozenset(a.id for a in authorities)
        self.all_trusted |= self.kept.known
        if read.view.bundles and all(read.view.bundles):
            self.kept.since = self.kept.since or time.monotonic()
        self.kept.trusted = "".join(h.certificate for h in read.stored_cas if h.authority.retired is None)
        ends = {
            part: leaf.not_after.timestamp() for part, leaf in read.view.leaves.items() if leaf is not None
        }
        self.kept.expiries = {"authority": authorities[-1].not_after.timestamp(), **ends}

    async def _read(self) -> _Read:
        authority = await self._secrets.read(self._settings.authority_secret)
        pairs = tuple([await self._secrets.read(pair.secret) for pair in self._settings.pairs])
        configurations = {key: await self._configuration(path) for key, path in self._paths.items()}
        stored_cas = _held(authority)
        foreign_cas = () if stored_cas else self._foreign_cas(pairs)
        view = State(
            tuple(h.authority for h in stored_cas),
            {secret.name: serving_cert_of(secret, stored_cas) for secret in pairs},
            self._wanted,
            tuple(self._trusted(key, document, stored_cas) for key, document in configurations.items()),
            tuple(bundle.ids(secret.text(LIST)) for secret in pairs),
            tuple(h.authority for h in foreign_cas),
        )
        return _Read(stored_cas, foreign_cas, authority, pairs, configurations, view)

    async def _configuration(self, path: str) -> Document | None:
        try:
            return await self._api.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _foreign_cas(self, pairs: tuple[Secret, ...]) -> tuple[StoredCA, ...]:
        """Return the CAs that are trusted before Weightlock has its own: the published ones and the installation's."""
        texts = [secret.text(LIST) for secret in pairs]
        for document in self._expected.values():
            texts += [bundle.of_webhook(webhook) or "" for webhook in document.get("webhooks") or ()]
        cas: dict[str, StoredCA] = {}
        for text in filter(None, texts):
            try:
                parsed = [store.foreign(certificate) for certificate in bundle.normalised(text)]
            except ValueError:
                continue
            cas.update((ca.authority.id, ca) for ca in parsed)
        return tuple(cas.values())

    def _trusted(
        self, key: ObjectKey, document: Document | None, stored_cas: tuple[StoredCA, ...]
    ) -> frozenset[str] | None:
        """Return the CAs in every caBundle of a configuration; None if the drift controller must restore it."""
        webhooks = (document or {}).get("webhooks")
        if not equal(without_bundles(self._expected[key]), webhooks):
            return None
        bundles = [bundle.of_webhook(webhook) for webhook in webhooks or ()]
        stored_ids = {h.authority.id for h in stored_cas}
        if all(bundle.is_made_of(one, stored_ids) for one in bundles):
            sets = [bundle.ids(one or "") for one in bundles]
            return sets[0] if all(one == sets[0] for one in sets) else frozenset()
        # A caBundle that another client modified is drift, which is reported and restored.
        in_force = any(h.authority.signs and h.authority.published for h in stored_cas)
        return None if in_force and (self._guarded or any(bundles)) else frozenset()

    async def _do(self, step: Step, read: _Read) -> None:
        match step:
            case Create():
                await self._save(read, (*read.stored_cas, self._authority()))
                self._count("authority")
                log.info("created a CA")
            case RecordState(authorities=authorities, why=why):
                by_id = {h.authority.id: h for h in (*read.stored_cas, *read.foreign_cas)}
                await self._save(read, tuple(by_id[a.id].noted(a) for a in authorities))
                log.info("changed the state of a CA", extra={"fields": {"why": why}})
            case PublishCAs():
                cas = "".join(h.certificate for h in read.stored_cas).encode()
                for secret in read.pairs:
                    if secret.data.get(LIST) != cas:
                        await self._secrets.write(secret, {LIST: cas})
            case SetCABundle():
                text = "".join(h.certificate for h in read.stored_cas if h.authority.retired is None)
                for key, document in read.configurations.items():
                    if document is not None:
                        await self._set_bundle(key, document, text)
            case Issue(part=part, authority=by, not_after=end):
                await self._issue(read, part, by, end)

    async def _save(self, read: _Read, stored_cas: tuple[StoredCA, ...]) -> None:
        await self._secrets.write(read.authority, {AUTHORITIES: store.encode(stored_cas)})

    def _authority(self) -> StoredCA:
        # A unique name: some verifiers find the issuer by name alone.
        name = f"Weightlock CA {x509.random_serial_number() % 2**32:08x}"
        now = datetime.now(UTC)
        return store.create(
            name, ec.generate_private_key(ec.SECP256R1()), now - _SLACK, now + self._times.authority
        )

    async def _set_bundle(self, key: ObjectKey, document: Document, text: str) -> None:
        """Set the caBundle of one configuration, and nothing else."""
        encoded = base64.b64encode(text.encode()).decode("ascii")
        version = document["metadata"]["resourceVersion"]
        patch: list[Document] = [{"op": "test", "path": "/metadata/resourceVersion", "value": version}]
        for index, _ in enumerate(document["webhooks"]):
            path = f"/webhooks/{index}/clientConfig/caBundle"
            patch.append({"op": "add", "path": path, "value": encoded})
        await self._api.request("PATCH", self._paths[key], body=patch, content_type=_JSON_PATCH)
        log.info("set the caBundle of a webhook configuration", extra={"fields": {"name": key.name}})

    async def _issue(self, read: _Read, part: str, by: str, end: datetime) -> None:
        signer = next(h for h in read.stored_cas if h.authority.id == by)
        until = max(end, signer.authority.signed_until or end)
        update = signer.noted(replace(signer.authority, signed_until=until))
        # Store the CA's required lifetime before a certificate depends on it.
        await self._save(read, tuple(update if h is signer else h for h in read.stored_cas))
        authority, authority_key = signer.signing()
        key = ec.generate_private_key(ec.SECP256R1())
        begin = max(datetime.now(UTC) - _SLACK, signer.authority.not_before)
        names = sorted(self._wanted[part])
        certificate = make_serving(names, key.public_key(), authority, authority_key, begin, end)
        secret = next(secret for secret in read.pairs if secret.name == part)
        files = {
            CERTIFICATE: certificate.public_bytes(Encoding.PEM),
            KEY: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        }
        await self._secrets.write(secret, files)
        self._count(part)
        log.info("issued a certificate", extra={"fields": {"secret": part, "names": names, "notAfter": end}})

    def _count(self, what: str) -> None:
        self.kept.made[what] = self.kept.made.get(what, 0) + 1


def _held(secret: Secret) -> tuple[StoredCA, ...]:
    """Return the CAs in their Secret; none if it is empty or unreadable."""
    text = secret.data.get(AUTHORITIES)
    if not text:
        return ()
    try:
        return store.decode(text)
    except store.StoreError as error:
        fields = {"secret": secret.name, "why": str(error)}
        log.error("cannot read the CAs, creating new ones", extra={"fields": fields})  # noqa: TRY400
        return ()
