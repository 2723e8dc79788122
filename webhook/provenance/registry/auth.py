"""Credentials of registries: ``config.json`` of Docker, pull secrets of Kubernetes, and credential helpers.

A credential helper is a program ``docker-credential-NAME`` that prints a user and a secret for a registry. Cloud
registries have one each, so their token exchange is a plug-in and not part of Weightlock.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from webhook.provenance import documents
from webhook.provenance.errors import MalformedError, RegistryUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MAX_CONFIG: Final = 1024 * 1024
_MAX_ANSWER: Final = 64 * 1024
_HELPER: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HELPER_SECONDS: Final = 10.0
# Helpers return tokens that are valid for hours; none reports its expiry.
_KEEP_SECONDS: Final = 300.0
_DOCKER_HUB: Final = ("https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and a secret, or an identity token (``user`` is empty)."""

    user: str = field(repr=False)
    secret: str = field(repr=False)

    def basic(self) -> str:
        """Return the value of the Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.secret}".encode()).decode()


class Keychain(Protocol):
    """A source of credentials."""

    async def find(self, registry: str, repository: str) -> Credentials | None:
        """Return the credentials for a repository, or None."""


class Anonymous:
    """No credentials."""

    async def find(self, registry: str, repository: str) -> Credentials | None:  # noqa: ARG002
        """Return None."""
        return None


class Chain:
    """Several keychains: the first that has credentials."""

    def __init__(self, keychains: Sequence[Keychain]) -> None:
        self._keychains = tuple(keychains)

    async def find(self, registry: str, repository: str) -> Credentials | None:
        """Return the credentials of the first keychain that has some."""
        for keychain in self._keychains:
            credentials = await keychain.find(registry, repository)
            if credentials is not None:
                return credentials
        return None


class DockerConfig:
    """The form of ``~/.docker/config.json`` and of secrets of type ``kubernetes.io/dockerconfigjson``.

    Helpers run only if ``helpers`` allows it: a pull secret comes from a user of the cluster and starts no program.
    """

    def __init__(self, data: bytes, *, helpers: bool = False) -> None:
        document = documents.parse(data, "the registry credentials", _MAX_CONFIG)
        self._auths = {
            key: documents.fields(value, "auths")
            for key, value in documents.fields(document.get("auths") or {}, "auths").items()
        }
        self._helpers: Mapping[str, Any] = {}
        self._store = ""
        if helpers:
            self._helpers = documents.fields(document.get("credHelpers") or {}, "credHelpers")
            self._store = str(document.get("credsStore") or "")
        self._kept: dict[str, tuple[float, Credentials | None]] = {}

    async def find(self, registry: str, repository: str) -> Credentials | None:
        """Return the credentials of the longest entry that covers the repository."""
        helper = self._helpers.get(registry) or self._store
        if helper:
            return await self._from_helper(str(helper), registry)
        entry = self._entry(registry, repository)
        return _decode(entry) if entry is not None else None

    def _entry(self, registry: str, repository: str) -> dict[str, Any] | None:
        best, longest = None, -1
        name = f"{registry}/{repository}"
        for key, value in self._auths.items():
            if registry == "docker.io" and key in _DOCKER_HUB:
                key = "docker.io"  # noqa: PLW2901
            place = re.sub(r"/v[12]/?$", "", key.removeprefix("https://").removeprefix("http://")).rstrip("/")
            covers = name == place or name.startswith(f"{place}/") or _wildcard(place, registry)
            if covers and len(place) > longest:
                best, longest = value, len(place)
        return best

    async def _from_helper(self, name: str, registry: str) -> Credentials | None:
        cached = self._kept.get(registry)
        if cached is not None and time.monotonic() - cached[0] < _KEEP_SECONDS:
            return cached[1]
        credentials = await run_helper(name, registry)
        self._kept[registry] = (time.monotonic(), credentials)
        return credentials


async def run_helper(name: str, registry: str) -> Credentials | None:
    """Run ``docker-credential-NAME get``. Returns None if it has no credentials for the registry.

    Raises:
        RegistryUnavailableError: The helper does not exist, fails or takes longer than 10 seconds.
    """
    if _HELPER.fullmatch(name) is None:
        raise RegistryUnavailableError(f"{name[:64]!r} is not the name of a credential helper")
    try:
        process = await asyncio.create_subprocess_exec(
            f"docker-credential-{name}",
            "get",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        raise RegistryUnavailableError(
            f"cannot run the credential helper {name}: {error.strerror}"
        ) from error
    try:
        async with asyncio.timeout(_HELPER_SECONDS):
            output, _ = await process.communicate(registry.encode())
    except TimeoutError as error:
        raise RegistryUnavailableError(
            f"the credential helper {name} takes longer than 10 seconds"
        ) from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        if b"credentials not found" in output[:200]:
            return None
        raise RegistryUnavailableError(
            f"the credential helper {name} failed with exit code {process.returncode}"
        )
    try:
        answer = documents.fields(orjson.loads(output[:_MAX_ANSWER]), "the answer of the helper")
    except orjson.JSONDecodeError as error:
        raise RegistryUnavailableError(f"the credential helper {name} printed no JSON") from error
    user = str(answer.get("Username", ""))
    return Credentials("" if user == "<token>" else user, str(answer.get("Secret", "")))


def _wildcard(place: str, registry: str) -> bool:
    """``*.example.com`` covers one label (k8s.io/kubernetes, pkg/credentialprovider/keyring.go)."""
    if "*" not in place:
        return False
    pattern, name = place.partition("/")[0].split("."), registry.split(".")
    return len(pattern) == len(name) and all(
        expected in ("*", label) for expected, label in zip(pattern, name, strict=True)
    )


def _decode(entry: dict[str, Any]) -> Credentials:
    token = entry.get("identitytoken") or entry.get("registrytoken")
    if token:
        return Credentials("", str(token))
    if entry.get("auth"):
        try:
            user, _, secret = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
        except (binascii.Error, ValueError) as error:
            raise MalformedError("the registry credentials are not base64 of user:password") from error
        return Credentials(user, secret.rstrip("\0"))
    return Credentials(str(entry.get("username", "")), str(entry.get("password", "")))
