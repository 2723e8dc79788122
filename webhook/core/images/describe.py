"""The CEL variable ``images``: every image of a pod, and what the statements of the snapshot say about it.

An image is *verified* only by digest. A tag can be moved between admission and the pull, so it is never verified,
unless Weightlock itself pins the digest when the pod is created (``settings.pinImages``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from webhook.core.kube.fields import list_at, object_at, text_at
from webhook.core.kube.names import image_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from webhook.api.images import ImageTrustSpec
    from webhook.core.images.index import ImageIndex, Rule
    from webhook.core.images.statements import Statement
    from webhook.core.kube.fields import Document

# Reasons beside the codes of `webhook.provenance.errors`.
NO_RULES: Final = "NoRules"
NO_RULE: Final = "NoRule"
TAG: Final = "Tag"
UNAVAILABLE: Final = "RegistryUnavailable"
_CONTAINERS: Final = ("initContainers", "containers", "ephemeralContainers")
_MAX_SECRETS: Final = 16
# One review fetches so many images at most, and the lists of larger pods are not cached. No image is left out.
_MAX_QUERIES: Final = 128
_TOO_MANY: Final = f"the pod names more than {_MAX_QUERIES} images that are not verified yet"


@dataclass(frozen=True, slots=True, order=True)
class ImageQuery:
    """What the shell fetches: an image, and the pull secrets of the pod that names it."""

    reference: str
    namespace: str
    account: str
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageAnswer:
    """The digest of an image and the statements about it, by the hash of the trust; or why there are none."""

    digest: str = ""
    statements: Mapping[str, Statement] = field(default_factory=dict)
    reason: str = ""
    message: str = ""


class _Name(NamedTuple):
    registry: str
    repository: str
    tag: str
    digest: str


@lru_cache(maxsize=4096)
def split_reference(reference: str) -> _Name:
    """Return the parts of a reference, normalised."""
    whole = image_reference(reference)
    registry, _, repository = whole.repository.partition("/")
    return _Name(registry, repository, whole.tag or ("" if whole.digest else "latest"), whole.digest)


def references_of(pod: Document, root: str = "spec") -> Iterator[tuple[str, str]]:
    """Yield ``(container, reference)`` of every container, and of every image volume with an empty container."""
    spec = object_at(pod, "spec", "")
    for name in _CONTAINERS:
        for index, container in enumerate(list_at(spec, name, root)):
            path = f"{root}.{name}[{index}]"
            reference = text_at(container, "image", path)
            if reference:
                yield text_at(container, "name", path), reference
    for index, volume in enumerate(list_at(spec, "volumes", root)):
        if volume.get("image") is not None:
            path = f"{root}.volumes[{index}].image"
            reference = text_at(object_at(volume, "image", path), "reference", path)
            if reference:
                yield "", reference


def query_of(pod: Document, reference: str, namespace: str) -> ImageQuery:
    """Return the query for one image of a pod."""
    spec = object_at(pod, "spec", "")
    secrets = [
        text_at(item, "name", "spec.imagePullSecrets") for item in list_at(spec, "imagePullSecrets", "spec")
    ]
    account = text_at(spec, "serviceAccountName", "spec") or "default"
    return ImageQuery(reference, namespace, account, tuple(filter(None, secrets[:_MAX_SECRETS])))


def describe(
    pod: Document,
    namespace: str,
    index: ImageIndex,
    fetched: Mapping[ImageQuery, ImageAnswer],
    *,
    known: frozenset[str] = frozenset(),
    pins: bool = False,
    pinned_later: bool = False,
) -> tuple[list[dict[str, Any]], set[ImageQuery]]:
    """Return the items of ``images`` and the queries whose answers are missing.

    ``known``: references that an update does not add. ``pins``: Weightlock pins digests, so a tag is resolved now. In a
    template it counts as its digest (``pinned_later``). A pod with a tag was not pinned, and the answer has the cause.
    """
    if not index and not known:
        return _without_rules(pod), set()
    items: list[dict[str, Any]] = []
    missing: set[ImageQuery] = set()
    queries: set[ImageQuery] = set()
    for container, reference in (item for item in references_of(pod) if item[1] not in known):
        name = split_reference(reference)
        rules = index.covering(f"{name.registry}/{name.repository}", namespace) if index else ()
        if not rules:
            items.append(_item(container, reference, name, reason=NO_RULE if index else NO_RULES))
            continue
        if not name.digest and not pins:
            items.append(_item(container, reference, name, reason=TAG))
            continue
        statements = _held(index, rules, name.digest)
        if statements is None:
            query = query_of(pod, reference, namespace)
            if query not in queries and len(queries) >= _MAX_QUERIES:
                items.append(_item(container, reference, name, reason=UNAVAILABLE, message=_TOO_MANY))
                continue
            queries.add(query)
            answer = fetched.get(query)
            if answer is None:
                missing.add(query)
                continue
            statements = [answer.statements[rule.hash] for rule in rules if rule.hash in answer.statements]
            if not name.digest and not pinned_later and answer.digest:
                items.append(_item(container, reference, name, reason=TAG))
                continue
            name = name._replace(digest=name.digest or answer.digest)
            if not statements:
                items.append(
                    _item(
                        container,
                        reference,
                        name,
                        reason=answer.reason or UNAVAILABLE,
                        message=answer.message,
                    )
                )
                continue
        items.append(_stated(container, reference, name, statements))
    return items, missing


def _without_rules(pod: Document) -> list[dict[str, Any]]:
    """Return the items where no rule exists, which costs next to nothing: most pods name images that others named."""
    try:
        spec = pod["spec"]
        plain = "initContainers" not in spec and "ephemeralContainers" not in spec
        if plain and not any("image" in volume for volume in spec.get("volumes") or ()):
            containers = spec.get("containers") or ()
            images = tuple([(item.get("name"), item.get("image")) for item in containers])
            return _unruled(images) if len(images) <= _MAX_QUERIES else _unruled.__wrapped__(images)
    except (AttributeError, KeyError, TypeError):
        # Not the shape of a pod: the readers below report it.
        pass
    images = (*references_of(pod),)
    return _unruled(images) if len(images) <= _MAX_QUERIES else _unruled.__wrapped__(images)


@lru_cache(maxsize=4096)
def _unruled(images: tuple[tuple[Any, Any], ...]) -> list[dict[str, Any]]:
    return [
        _item(container or "", reference, split_reference(reference), reason=NO_RULES)
        for container, reference in images
        if reference
    ]


def _held(index: ImageIndex, rules: Sequence[Rule], digest: str) -> list[Statement] | None:
    """Return the statements of the snapshot; None if no rule verifies the image and one has no statement yet."""
    if not digest:
        return None
    candidates = [index.statement(rule.hash, digest) for rule in rules]
    statements = [statement for statement in candidates if statement is not None]
    if len(statements) == len(candidates) or any(not statement.reason for statement in statements):
        return statements
    return None


def _stated(container: str, reference: str, name: _Name, statements: Sequence[Statement]) -> dict[str, Any]:
    verified = [statement for statement in statements if not statement.reason]
    counted = verified or statements
    signers: list[Mapping[str, str]] = []
    attestations: dict[str, list[Any]] = {}
    for statement in counted:
        signers += [signer for signer in statement.signers if signer not in signers]
        for kind, predicates in statement.attestations.items():
            attestations.setdefault(kind, []).extend(predicates)
    first = counted[0]
    return _item(
        container,
        reference,
        name,
        verified=bool(verified),
        signers=signers,
        attestations=attestations,
        reason=first.reason,
        message=first.message,
    )


def _item(
    container: str,
    reference: str,
    name: _Name,
    *,
    verified: bool = False,
    signers: Sequence[Mapping[str, str]] = (),
    attestations: Mapping[str, list[Any]] | None = None,
    reason: str = "",
    message: str = "",
) -> dict[str, Any]:
    return {
        "reference": reference,
        "registry": name.registry,
        "repository": name.repository,
        "tag": name.tag,
        "digest": name.digest,
        "container": container,
        "verified": verified,
        "signers": [{"issuer": "", "subject": "", "key": "", **signer} for signer in signers],
        "attestations": attestations or {},
        "reason": reason,
        "message": message,
    }


def pin(
    pod: Document, namespace: str, fetched: Mapping[ImageQuery, ImageAnswer]
) -> tuple[list[dict[str, Any]], set[ImageQuery]]:
    """Return the JSON patch that adds the digest to each image with a tag only, and the queries that are missing.

    An image that cannot be resolved stays as it is: mutation never denies, and validation reports the cause.
    """
    operations: list[dict[str, Any]] = []
    missing: set[ImageQuery] = set()
    for path, reference in _places(pod):
        if split_reference(reference).digest:
            continue
        query = query_of(pod, reference, namespace)
        answer = fetched.get(query)
        if answer is None:
            missing.add(query)
        elif answer.digest:
            operations.append({"op": "replace", "path": path, "value": f"{reference}@{answer.digest}"})
    return operations, missing


def _places(pod: Document) -> Iterator[tuple[str, str]]:
    """Yield the JSON pointer and the reference of every image."""
    spec = object_at(pod, "spec", "")
    for name in _CONTAINERS:
        for index, container in enumerate(list_at(spec, name, "spec")):
            reference = text_at(container, "image", f"spec.{name}[{index}]")
            if reference:
                yield f"/spec/{name}/{index}/image", reference
    for index, volume in enumerate(list_at(spec, "volumes", "spec")):
        if volume.get("image") is not None:
            path = f"spec.volumes[{index}].image"
            reference = text_at(object_at(volume, "image", path), "reference", path)
            if reference:
                yield f"/spec/volumes/{index}/image/reference", reference


def rules_for(query: ImageQuery, index: ImageIndex) -> dict[str, ImageTrustSpec]:
    """Return the trust of the rules that cover a queried image, by its hash."""
    name = split_reference(query.reference)
    rules = index.covering(f"{name.registry}/{name.repository}", query.namespace)
    return {rule.hash: rule.spec for rule in rules}
