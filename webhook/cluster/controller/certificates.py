"""Keeps our own certificates: looks at Secrets and webhook configurations, has the planner say what is next, does it.

Every write meets the version that was looked at, so of two controllers one is refused and looks again. The key of an
authority is in one Secret and, while it signs, in this process; it is logged nowhere.
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
from webhook.core.integrity.protection import Continued, last_change, protection, same, without_bundles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.api.config import Certificates as Settings
    from webhook.api.config import Controller
    from webhook.cluster.client.api import KubeApi
    from webhook.core.certificates.model import Step
    from webhook.core.certificates.store import StoredCA
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey

# Clocks differ: valid from a little before it was made.
_SLACK = timedelta(minutes=5)
# All the steps of a first installation, and some.
_STEPS = 24
_WATCH_SECONDS = 5.0
_OVERTAKEN = (409, 422)
_JSON_PATCH = "application/json-patch+json"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Look:
    """All that was read at one moment."""

    held: tuple[StoredCA, ...]
    foreign_cas: tuple[StoredCA, ...]
    authority: Secret
    pairs: tuple[Secret, ...]
    configurations: Mapping[ObjectKey, Document | None]
    view: State


@dataclass(slots=True)
class ObjectCache:
    """What is known after a look. ``known`` are the ids of all authorities, None before the first look.

    ``since`` is when (monotonic) webhook configurations were first seen to hold one of ours.
    """

    known: frozenset[str] | None = None
    since: float | None = None
    trusted: str = ""
    expiries: dict[str, float] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    trouble: str = "certificates were not read yet"


class Certificates:
    """Our certificates. ``paths`` says where each of the ``expected`` webhook configurations is.

    ``continued`` holds the changes of ours that left a configuration as guarded as it was.
    """

    def __init__(
        self,
        api: KubeApi,
        controller: Controller,
        settings: Settings,
        expected: Mapping[ObjectKey, Document],
        paths: Mapping[ObjectKey, str],
    ) -> None:
        self.kept = ObjectCache()
        self.continued: dict[ObjectKey, Continued] = {}
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
        self._next_look = 0.0

    async def keep(self) -> None:
        """Do all that is to be done now; what cannot be done is said, and tried again at the next call."""
        if time.monotonic() < self._next_look:
            return
        try:
            for _ in range(_STEPS):
                look = await self._look()
                self._learn(look)
                step = next_step(look.view, self._times, datetime.now(UTC))
                if step is None:
                    self._next_look = time.monotonic() + self._settings.check_seconds
                    break
                await self._do(step, look)
        except ApiError as error:
            if error.status not in _OVERTAKEN:
                self._say(f"certificates cannot be kept: {error}")
            return
        self._say("")

    def in_office(self) -> frozenset[str] | None:
        """The authorities that webhook configurations may hold; None while they do not hold ours for long yet.

        A watch may still show a configuration from before.
        """
        if self.kept.since is None or time.monotonic() < self.kept.since + _WATCH_SECONDS:
            return None
        return self.kept.known

    def filled_in(self, wanted: Document) -> Document:
        """A webhook configuration with the authorities it should hold."""
        encoded = base64.b64encode(self.kept.trusted.encode()).decode("ascii")
        return {
            **wanted,
            "webhooks": [
                {**webhook, "clientConfig": {**webhook["clientConfig"], "caBundle": encoded}}
                for webhook in wanted["webhooks"]
            ],
        }

    def _say(self, trouble: str) -> None:
        if trouble != self.kept.trouble and trouble:
            log.error("certificates cannot be kept", extra={"fields": {"why": trouble}})
        self.kept.trouble = trouble

    def _learn(self, look: _Look) -> None:
        authorities = look.view.authorities
        if not authorities:
            return
        self.kept.known = frozenset(a.id for a in authorities)
        self.kept.trusted = "".join(h.certificate for h in look.held if h.authority.retired is None)
        ends = {
            part: leaf.not_after.timestamp() for part, leaf in look.view.leaves.items() if leaf is not None
        }
        self.kept.expiries = {"authority": authorities[-1].not_after.timestamp(), **ends}

    async def _look(self) -> _Look:
        authority = await self._secrets.read(self._settings.authority_secret)
        pairs = tuple([await self._secrets.read(pair.secret) for pair in self._settings.pairs])
        configurations = {key: await self._configuration(path) for key, path in self._paths.items()}
        held = _held(authority)
        foreign_cas = () if held else self._strangers(pairs)
        view = State(
            tuple(h.authority for h in held),
            {secret.name: serving_cert_of(secret, held) for secret in pairs},
            self._wanted,
            tuple(self._trusted(key, document, held) for key, document in configurations.items()),
            tuple(bundle.ids(secret.text(LIST)) for secret in pairs),
            tuple(h.authority for h in foreign_cas),
        )
        return _Look(held, foreign_cas, authority, pairs, configurations, view)

    async def _configuration(self, path: str) -> Document | None:
        try:
            return await self._api.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _strangers(self, pairs: tuple[Secret, ...]) -> tuple[StoredCA, ...]:
        """Who is trusted while we have no authority: those we told of before, and those the installation names."""
        texts = [secret.text(LIST) for secret in pairs]
        for document in self._expected.values():
            texts += [bundle.of_webhook(webhook) or "" for webhook in document.get("webhooks") or ()]
        found: dict[str, StoredCA] = {}
        for text in filter(None, texts):
            try:
                held = [store.stranger(certificate) for certificate in bundle.normalised(text)]
            except ValueError:
                continue
            found.update((h.authority.id, h) for h in held)
        return tuple(found.values())

    def _trusted(
        self, key: ObjectKey, document: Document | None, held: tuple[StoredCA, ...]
    ) -> frozenset[str] | None:
        """The authorities that every webhook of a configuration holds; None where that is not ours to mend quietly."""
        webhooks = (document or {}).get("webhooks")
        if not same(without_bundles(self._expected[key]), webhooks):
            return None
        bundles = [bundle.of_webhook(webhook) for webhook in webhooks or ()]
        known = {h.authority.id for h in held}
        if all(bundle.is_made_of(one, known) for one in bundles):
            sets = [bundle.ids(one or "") for one in bundles]
            return sets[0] if all(one == sets[0] for one in sets) else frozenset()
        # What somebody else did to a bundle of ours is for the controller to report and to put back.
        in_office = any(h.authority.signs and h.authority.published for h in held)
        return None if in_office and (self._guarded or any(bundles)) else frozenset()

    async def _do(self, step: Step, look: _Look) -> None:
        match step:
            case Create():
                await self._save(look, (*look.held, self._authority()))
                self._count("authority")
                log.info("made an authority")
            case RecordState(authorities=authorities, why=why):
                by_id = {h.authority.id: h for h in (*look.held, *look.foreign_cas)}
                await self._save(look, tuple(by_id[a.id].noted(a) for a in authorities))
                log.info("certificates", extra={"fields": {"what": why}})
            case PublishCAs():
                everyone = "".join(h.certificate for h in look.held).encode()
                for secret in look.pairs:
                    if secret.data.get(LIST) != everyone:
                        await self._secrets.write(secret, {LIST: everyone})
            case SetCABundle():
                text = "".join(h.certificate for h in look.held if h.authority.retired is None)
                for key, document in look.configurations.items():
                    if document is not None:
                        await self._trust(key, document, text)
            case Issue(part=part, authority=by, not_after=end):
                await self._issue(look, part, by, end)

    async def _save(self, look: _Look, held: tuple[StoredCA, ...]) -> None:
        await self._secrets.write(look.authority, {AUTHORITIES: store.encode(held)})

    def _authority(self) -> StoredCA:
        # A name of its own: there are verifiers that look for the signer by name alone.
        name = f"Weightlock authority {x509.random_serial_number() % 2**32:08x}"
        now = datetime.now(UTC)
        return store.made(
            name, ec.generate_private_key(ec.SECP256R1()), now - _SLACK, now + self._times.authority
        )

    async def _trust(self, key: ObjectKey, document: Document, text: str) -> None:
        """Put the bundle into one configuration, and nothing else."""
        encoded = base64.b64encode(text.encode()).decode("ascii")
        version = document["metadata"]["resourceVersion"]
        patch: list[Document] = [{"op": "test", "path": "/metadata/resourceVersion", "value": version}]
        for index, _ in enumerate(document["webhooks"]):
            path = f"/webhooks/{index}/clientConfig/caBundle"
            patch.append({"op": "add", "path": path, "value": encoded})
        guarded = protection(
            {key: self._expected[key]}, {key: document}, authorities=self.kept.known or frozenset()
        )
        written = await self._api.request("PATCH", self._paths[key], body=patch, content_type=_JSON_PATCH)
        if not guarded.faults:
            self._continue(key, document, written)
        log.info(
            "certificates",
            extra={"fields": {"what": "a webhook configuration trusts anew", "name": key.name}},
        )

    def _continue(self, key: ObjectKey, before: Document, after: Document) -> None:
        version, moment = last_change(before)
        own = self.continued.get(key)
        if own is not None and own.version == version:
            version, moment = own.before, own.since
        self.continued[key] = Continued(last_change(after)[0], version, moment)

    async def _issue(self, look: _Look, part: str, by: str, end: datetime) -> None:
        signer = next(h for h in look.held if h.authority.id == by)
        until = max(end, signer.authority.signed_until or end)
        noted = signer.noted(replace(signer.authority, signed_until=until))
        # First it is written down that the authority is needed so long; only then there is something that needs it.
        await self._save(look, tuple(noted if h is signer else h for h in look.held))
        authority, authority_key = signer.signing()
        key = ec.generate_private_key(ec.SECP256R1())
        begin = max(datetime.now(UTC) - _SLACK, signer.authority.not_before)
        names = sorted(self._wanted[part])
        certificate = make_serving(names, key.public_key(), authority, authority_key, begin, end)
        secret = next(secret for secret in look.pairs if secret.name == part)
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
    """The authorities in their Secret; none where it was never filled, or what is in it cannot be read."""
    text = secret.data.get(AUTHORITIES)
    if not text:
        return ()
    try:
        return store.decode(text)
    except store.StoreError as error:
        fields = {"secret": secret.name, "why": str(error)}
        log.error("the authorities cannot be read, so others are made", extra={"fields": fields})  # noqa: TRY400
        return ()
