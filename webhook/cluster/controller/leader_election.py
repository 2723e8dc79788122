"""Leader election on a Lease: one replica leads, and stops before another one starts.

The rules are those of client-go (tools/leaderelection): a replica takes a lease over only after it saw the lease
unchanged for its whole duration, because clocks differ. A leader that could not renew for ``RENEW_SECONDS`` stops.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from webhook.cluster.client.api import ApiError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from webhook.cluster.client.api import KubeApi
    from webhook.core.kube.fields import Document

LEASE_SECONDS = 15
RENEW_SECONDS = 10.0
RETRY_SECONDS = 2.0
_CONFLICTS = (404, 409)

log = logging.getLogger(__name__)


class LeaderElector:
    """One candidate for one lease. ``leading`` is true while it is the leader.

    ``owner`` is a Secret of the release. The garbage collector deletes the lease after it, also on `helm uninstall`.
    """

    def __init__(
        self,
        api: KubeApi,
        namespace: str,
        name: str,
        identity: str,
        *,
        retry: float = RETRY_SECONDS,
        owner: str = "",
    ) -> None:
        self.leading = False
        self._namespace = quote(namespace, safe="")
        self._owner = owner
        self._api = api
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace, safe='')}/leases"
        self._name = name
        self._identity = identity
        self._retry = retry
        self._seen: tuple[str, float] = ("", 0.0)

    async def run(self, act: Callable[[], Awaitable[None]]) -> None:
        """Wait for the lease, call ``act`` while leading, and start over when the lease is lost; until cancelled."""
        while True:
            while not await self._attempt():  # noqa: ASYNC110 - there is no event: the lease is polled
                await asyncio.sleep(self._retry * random.uniform(1, 1.2))  # noqa: S311 - to spread load
            log.info("became leader", extra={"fields": {"lease": self._name}})
            self.leading = True
            acting = asyncio.ensure_future(act())
            try:
                await self._hold(acting)
            finally:
                self.leading = False
                acting.cancel()
                await asyncio.gather(acting, return_exceptions=True)
            log.warning("lost leadership", extra={"fields": {"lease": self._name}})

    async def release(self) -> None:
        """Release the lease, so that another replica need not wait for its expiry."""
        try:
            lease = await self._api.get(f"{self._path}/{self._name}")
            if lease["spec"].get("holderIdentity") == self._identity:
                await self._write(lease, holder="", seconds=1)
        except ApiError as error:
            log.info("cannot release the lease", extra={"fields": {"why": str(error)}})

    async def _hold(self, acting: asyncio.Future[None]) -> None:
        renewed = time.monotonic()
        while not acting.done():
            await asyncio.wait([acting], timeout=self._retry)
            if await self._attempt():
                renewed = time.monotonic()
            elif time.monotonic() - renewed > RENEW_SECONDS:
                return
        acting.result()

    async def _attempt(self) -> bool:
        """Acquire or renew the lease; return whether this replica has it."""
        try:
            async with asyncio.timeout(RENEW_SECONDS / 2):
                return await self._take()
        except (ApiError, TimeoutError) as error:
            if not (isinstance(error, ApiError) and error.status in _CONFLICTS):
                log.warning("cannot acquire or renew the lease", extra={"fields": {"why": str(error)}})
            return False

    async def _take(self) -> bool:
        try:
            lease = await self._api.get(f"{self._path}/{self._name}")
        except ApiError as error:
            if error.status != 404:
                raise
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name},
            }
            await self._write(await self._owned(lease), holder=self._identity, seconds=LEASE_SECONDS)
            return True
        spec = lease.get("spec") or {}
        version = str(lease["metadata"].get("resourceVersion", ""))
        if version != self._seen[0]:
            self._seen = (version, time.monotonic())
        is_held = spec.get("holderIdentity") not in ("", None, self._identity)
        if is_held and time.monotonic() - self._seen[1] < float(
            spec.get("leaseDurationSeconds") or LEASE_SECONDS
        ):
            return False
        if not self.leading and not lease["metadata"].get("ownerReferences"):
            # A former version created it without an owner.
            lease = await self._owned(lease)
        await self._write(lease, holder=self._identity, seconds=LEASE_SECONDS)
        return True

    async def _owned(self, lease: Document) -> Document:
        """Return the lease with its owner, or unchanged if there is none."""
        if not self._owner:
            return lease
        try:
            secret = await self._api.get(f"/api/v1/namespaces/{self._namespace}/secrets/{self._owner}")
        except ApiError as error:
            log.info("the lease has no owner", extra={"fields": {"why": str(error)}})
            return lease
        reference = {
            "apiVersion": "v1",
            "kind": "Secret",
            "name": self._owner,
            "uid": secret["metadata"]["uid"],
        }
        return {**lease, "metadata": {**lease["metadata"], "ownerReferences": [reference]}}

    async def _write(self, lease: Document, *, holder: str, seconds: int) -> None:
        """Create or replace the lease; the resource version makes the second of two writes fail."""
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        old = lease.get("spec") or {}
        taken = old.get("holderIdentity") == holder
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": seconds,
            "acquireTime": old.get("acquireTime") if taken and old.get("acquireTime") else now,
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if taken or not holder else 1),
        }
        try:
            await self._send({**lease, "spec": spec})
        except ApiError as error:
            if error.status != 403 or not self._owner or "ownerReferences" not in lease["metadata"]:
                raise
            # The plugin OwnerReferencesPermissionEnforcement requires the right to delete the lease.
            self._owner = ""
            metadata = {key: value for key, value in lease["metadata"].items() if key != "ownerReferences"}
            await self._send({**lease, "metadata": metadata, "spec": spec})

    async def _send(self, body: Document) -> None:
        if "resourceVersion" in body["metadata"]:
            await self._api.request("PUT", f"{self._path}/{self._name}", body=body)
        else:
            await self._api.request("POST", self._path, body=body)
