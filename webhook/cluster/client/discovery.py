"""Kinds to resources, as this cluster names them: what the API server's discovery says, remembered."""

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
    """Finds the resource of any kind. What is not there now is asked for again after half a minute."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._found: dict[tuple[str, str], ResourceKind] = {}
        self._absent: dict[tuple[str, str], float] = {}

    async def find(self, name: str, version: str = "") -> ResourceKind | None:
        """The resource of ``Kind.group``, in a version or else in the one the API server prefers; None: no such kind.

        Raises `ApiError` where the API server cannot say.
        """
        known = KNOWN.get(name)
        if known is not None and version in ("", known.api_version.rpartition("/")[2]):
            return known
        place = (name, version)
        if place in self._found:
            return self._found[place]
        if self._absent.get(place, 0.0) > time.monotonic():
            return None
        found = await self._ask(name, version)
        if len(self._found) + len(self._absent) >= _MAX_KINDS:
            self._found.clear()
            self._absent.clear()
        if found is None:
            self._absent[place] = time.monotonic() + _ABSENT_SECONDS
        else:
            self._found[place] = found
        return found

    async def _ask(self, name: str, version: str) -> ResourceKind | None:
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
                # Such a kind may vanish with its definition, and that is no fault.
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
            raise ApiError(0, "BadAnswer", f"the API server does not say which version of {group} it prefers")
        return api_version
