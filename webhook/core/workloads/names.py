"""Names of fields that hold a part of a pod: a claim, a service account, an image, a model's address.

A name has the same meaning in each spelling: ``pvcName``, ``pvc_name`` and ``pvc-name`` are one. Only `is_claim_beside`
depends on the fields beside it, because a ``claim`` may also be one of a token or of a device.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_MAX_NAME = 64
_CLAIM = re.compile(
    r"\w*(?:pvc|persistentvolumeclaim|volumeclaim)(?:s|name|names|ref)?|\w*claimname"
    r"|(?:cache|checkpoints?|data|datasets?|disk|existing|input|models?|output|scratch|shared|source|storage|volume|weights"
    r"|workspace)claim(?:s|ref)?"
)
_ACCOUNT = re.compile(r"(\w*)serviceaccount(?:name|names|ref)?|saname")
# A text that an operator applies to its pods, as JSON or YAML: podSpecPatch, podTemplatePatch.
_PATCH = re.compile(
    r"(?:\w*pod\w*|\w*template|workload|container|job)(?:json|merge|strategic|yaml)?(?:patch(?:es)?|overlay)"
)
_IMAGES = frozenset({
    "image", "baseimage", "containerimage", "driverimage", "executorimage", "imagename", "imageref", "runtimeimage",
    "serverimage", "workerimage",
})  # fmt: skip
_ADDRESSES = frozenset({
    "baseuri", "cacheuri", "modeluri", "modelurl", "sourcemodeluri", "storageuri", "storageuris", "sourceuri",
})  # fmt: skip
# Fields that a mounted claim has beside its name.
_MOUNT = frozenset({
    "accessmodes", "mountpath", "readonly", "size", "storage", "storageclass", "storageclassname", "subpath",
})  # fmt: skip


@lru_cache(maxsize=4096)
def plain(name: str) -> str:
    """A name without case, dashes and underscores; empty if it is too long to be one of a field."""
    return name.lower().replace("_", "").replace("-", "") if len(name) <= _MAX_NAME else ""


@lru_cache(maxsize=4096)
def is_claim_name(name: str) -> bool:
    """Whether a field of this name holds the name of a claim."""
    text = plain(name)
    if ("pvc" not in text and "claim" not in text) or text.endswith("resourceclaimname"):
        return False
    return _CLAIM.fullmatch(text) is not None


def is_claim_beside(name: str, siblings: Collection[str]) -> bool:
    """Whether a field such as ``claim`` or ``dataClaim`` holds the name of a claim, by the fields beside it."""
    text = plain(name)
    if not text.endswith("claim") or text.endswith("resourceclaim"):
        return False
    return not _MOUNT.isdisjoint(map(plain, siblings))


@lru_cache(maxsize=4096)
def is_account_name(name: str) -> bool:
    """Whether a field of this name holds the name of a service account."""
    text = plain(name)
    return text.endswith(("name", "names", "ref", "serviceaccount")) and _ACCOUNT.fullmatch(text) is not None


def account_role(name: str) -> str:
    """The role in the name of a service account's field: ``worker`` of ``workerServiceAccountName``."""
    match = _ACCOUNT.fullmatch(plain(name))
    return (match[1] or "") if match is not None else ""


def is_patch_name(name: str) -> bool:
    """Whether a text in a field of this name changes pods: as a patch, or as an overlay."""
    text = plain(name)
    return text.endswith(("patch", "patches", "overlay")) and _PATCH.fullmatch(text) is not None


def is_image_name(name: str) -> bool:
    """Whether a field of this name holds the reference of an image."""
    return plain(name) in _IMAGES


def is_address_name(name: str) -> bool:
    """Whether a field of this name holds the address of a model."""
    return plain(name) in _ADDRESSES
