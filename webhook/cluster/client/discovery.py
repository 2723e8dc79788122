"""Map kinds to resources by the API server's discovery, with a cache."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from webhook.cluster.client.api import ApiError
from webhook.cluster.client.kinds import KNOWN, ResourceKind, api_path

if TYPE_CHECKING:
    from webhook.cluster.client.api import KubeApi

_ABSENT_SECONDS = 30.0
_MAX_KINDS = 1024
_GROUP = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


class Discovery:
    """Finds the resource of a kind. An absent kind is queried again after half a minute."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._kinds: dict[tuple[str, str], ResourceKind] = {}
        self._absent: dict[tuple[str, str], float] = {}

    async def find(self, name: str, version: str = "") -> ResourceKind | None:
        """Return the resource of ``Kind.group``, in ``version`` or the preferred one; None if the kind does not exist.

        Raises:
            ApiError: discovery failed.
        """
        builtin = KNOWN.get(name)
        if builtin is not None and version in ("", builtin.api_version.rpartition("/")[2]):
            return builtin
        place = (name, version)
        if place in self._kinds:
            return self._kinds[place]
        if self._absent.get(place, 0.0) > time.monotonic():
            return None
        kind = await self._discover(name, version)
        if len(self._kinds) + len(self._absent) >= _MAX_KINDS:
            self._kinds.clear()
            self._absent.clear()
        if kind is None:
            self._absent[place] = time.monotonic() + _ABSENT_SECONDS
        else:
            self._kinds[place] = kind
        return kind

    async def _discover(self, name: str, version: str) -> ResourceKind | None:
        kind, _, group = name.partition(".")
        if group and not _GROUP.fullmatch(group):
            return None
        try:
            api_version = await self._api_version(group, version)
            resources = (await self._api.get(api_path(api_version))).get("resources")
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        for item in resources if isinstance(resources, list) else ():
            if isinstance(item, dict) and item.get("kind") == kind and "/" not in str(item.get("name", "/")):
                # The kind may disappear with its CRD, which is not an error.
                return ResourceKind(
                    api_version, kind, item["name"], item.get("namespaced") is True, optional=True
                )
        return None

    async def _api_version(self, group: str, version: str) -> str:
        if not group:
            return version or "v1"
        if version and _GROUP.fullmatch(version):
            return f"{group}/{version}"
        preferred = (await self._api.get(f"/apis/{group}")).get("preferredVersion")
        api_version = preferred.get("groupVersion") if isinstance(preferred, dict) else None
        if not isinstance(api_version, str):
            raise ApiError(0, "BadAnswer", f"the API server reports no preferred version of {group}")
        return api_version
