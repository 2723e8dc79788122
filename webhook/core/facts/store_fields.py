"""Object stores that a custom resource names by several fields, such as ``s3: {bucket: weights, key: atlas}``.

Operators have no common form, so the names of fields are only hints. A name without a directory stands for the whole
bucket, container or repository.
"""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from webhook.core.kube.fields import object_at, text_at
from webhook.core.storage.drivers import bucket, hub
from webhook.core.storage.locations import directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.kube.fields import Document
    from webhook.core.storage.locations import Location

_BUCKET = re.compile(r"bucket(?:name|id)?\Z")
_BELOW = re.compile(r"prefix|path|object|folder|dir(?:ectory)?\Z|key\Z")
_SPACES = {"s3": "s3", "gcs": "gs", "gs": "gs", "oss": "oss", "obs": "obs"}
_CONTAINER = frozenset({"blobcontainer", "container", "containername"})
_ACCOUNT = re.compile(r"(?:storage)?account(?:name)?\Z")
_OWNER = frozenset({"namespace", "org", "organization", "owner"})
_REPOSITORY = frozenset({"model", "modelname", "name", "repo", "reponame", "repository"})
_HUB = re.compile(r"(?:^|\.)(?:hf|\w*hugging_?face\w*)(?:\.|\[|\Z)", re.IGNORECASE)
_IMAGE = frozenset({"image", "name", "repository"})
# Fields of a kind that is a bucket, by which it names the bucket of the cloud.
_NAMES = ("name", "existingBucketID", "existingBucketName", "resourceID")
_EXTERNAL_NAME = "crossplane.io/external-name"
# Generates the name of its bucket, so its own name says nothing (kubernetes-sigs/container-object-storage-interface).
_GENERATED = "objectstorage.k8s.io/"
_MAX_NAME = 512


class NamedStore(NamedTuple):
    """A store that an object names: where, as a text, and its locations or its image."""

    path: str
    text: str
    locations: tuple[Location, ...] = ()
    image: str = ""


def named_stores(document: Document) -> Iterator[NamedStore]:
    """Yield the stores that the fields of a custom resource name together, apart from its metadata and status."""
    yield from _own_bucket(document)
    stack: list[tuple[Any, str]] = [
        (value, key)
        for key, value in document.items()
        if key not in ("apiVersion", "kind", "metadata", "status")
    ]
    while stack:
        item, path = stack.pop()
        if isinstance(item, list):
            stack.extend((member, f"{path}[{index}]") for index, member in enumerate(item))
        elif isinstance(item, dict):
            stack.extend((member, f"{path}.{key}") for key, member in item.items())
            texts = {
                key.lower().replace("_", "").replace("-", ""): value
                for key, value in item.items()
                if isinstance(value, str) and 0 < len(value) <= _MAX_NAME
            }
            if texts:
                yield from _in_fields(texts, path)


def _in_fields(texts: Mapping[str, str], path: str) -> Iterator[NamedStore]:
    """Yield the stores that the texts of one object name, by their keys without separators."""
    below = [value for key, value in texts.items() if _BELOW.search(key) is not None] or [""]
    for key, name in texts.items():
        if _BUCKET.search(key) is not None:
            yield from _bucket(name, below, path)
    if "bucket" in texts.get("kind", "").lower():
        for key in ("name", "external"):
            if key in texts:
                yield from _bucket(texts[key].rpartition("/")[2], [""], path)
    yield from _containers(texts, below, path)
    if _HUB.search(path) is not None:
        for owner, name in product(sorted(_OWNER & texts.keys()), sorted(_REPOSITORY & texts.keys())):
            repository = f"{texts[owner]}/{texts[name]}"
            yield NamedStore(path, f"hf://{repository}", tuple(hub(repository)))
    if "registry" in texts:
        tag = f":{texts['tag']}" if "tag" in texts else ""
        for name in sorted(_IMAGE & texts.keys()):
            image = f"{texts['registry'].rstrip('/')}/{texts[name]}{tag}"
            yield NamedStore(path, image, image=image)


def _containers(texts: Mapping[str, str], below: list[str], path: str) -> Iterator[NamedStore]:
    """Yield the containers of a storage account of Azure."""
    accounts = [value for key, value in texts.items() if _ACCOUNT.search(key) is not None]
    names = [texts[key] for key in sorted(_CONTAINER & texts.keys())]
    for account, name, prefix in product(accounts, names, below):
        places = directory("azblob", f"{name}/{prefix}", name=account, fold=True)
        yield NamedStore(path, f"container {name} of account {account}", tuple(places))


def _bucket(name: str, below: list[str], path: str) -> Iterator[NamedStore]:
    if "://" in name:
        return
    spaces = [space for mark, space in _SPACES.items() if mark in path.lower()] or _SPACES.values()
    for space in dict.fromkeys(spaces):
        for prefix in below:
            yield NamedStore(path, f"{space}://{name}/{prefix}", tuple(bucket(space, name, prefix)))


def _own_bucket(document: Document) -> Iterator[NamedStore]:
    """Yield the bucket that an object of a kind such as ``StorageBucket`` or ``BucketClaim`` manages."""
    if "bucket" not in str(document.get("kind")).lower():
        return
    spec, metadata = document.get("spec"), object_at(document, "metadata", "")
    names = (
        {spec[key] for key in _NAMES if isinstance(spec.get(key), str)} if isinstance(spec, dict) else set()
    )
    if not str(document.get("apiVersion")).startswith(_GENERATED):
        names.add(text_at(metadata, "name", "metadata"))
    names.add(str(object_at(metadata, "annotations", "metadata").get(_EXTERNAL_NAME, "")))
    for name in sorted(names - {""}):
        yield from _bucket(name, [""], "spec")
