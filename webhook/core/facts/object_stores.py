"""Object stores and hubs: pods and custom resources that name one, hold its Secret or run with its cloud role.

A webhook sees addresses and the names of Secrets and service accounts. It does not see code that reads a bucket with a
key inside the image: docs/storage.md lists the accesses that no admission controller can see.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from webhook.core.facts.expansion import container_variables, expanded
from webhook.core.facts.model import WeightUse
from webhook.core.facts.store_fields import named_stores
from webhook.core.kube.fields import list_at, object_at, text_at
from webhook.core.kube.names import is_glob, is_qualified, path_within
from webhook.core.kube.objects import ObjectKey
from webhook.core.storage.drivers import hub
from webhook.core.storage.identity import image_detail
from webhook.core.storage.locations import Relation
from webhook.core.storage.model import UNKNOWN, Model
from webhook.core.storage.sources import backend_of
from webhook.core.storage.uris import https_image, parse_bare, parse_uri, uris_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from webhook.core.facts.context import Context
    from webhook.core.facts.pod import PodView
    from webhook.core.kube.fields import Document
    from webhook.core.storage.locations import Location

# The spaces that an address can name, whether a ModelWeights or a protected volume holds storage in them.
_SPACES = ("s3", "gs", "oss", "obs", "azblob", "azfile", "hf", "hf-bucket", "uri:https")
# Annotations of a service account, or of a pod, that give it a cloud role.
ROLE_ANNOTATIONS = (
    "eks.amazonaws.com/role-arn",
    "iam.gke.io/gcp-service-account",
    "azure.workload.identity/client-id",
    "pod-identity.alibabacloud.com/role-name",
)
_POD_ROLE = "iam.amazonaws.com/role"
# Roles of clouds by their form: Amazon, Google, Alibaba, Tencent and Volcengine. Other annotations of the same form on
# an account, and variables or arguments of a pod, name a role, too.
_ROLE_NAME = r"arn:aws[\w-]*:iam::.+|acs:ram::.+|qcs::cam:.+|trn:iam::.+"
_GOOGLE_DOMAIN = r"@[\w.-]+\.gserviceaccount\.com"
_ROLE = re.compile(rf"{_ROLE_NAME}|[\w.-]+{_GOOGLE_DOMAIN}", re.IGNORECASE)
# The search begins at the separator, because a search for the name before it takes quadratic time.
_ROLE_INSIDE = re.compile(rf"{_ROLE_NAME}|{_GOOGLE_DOMAIN}", re.IGNORECASE)
# The client of a managed identity of Azure.
_CLIENT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# The variables that the cloud's webhook would set: with a projected token, a pod can set them itself.
_ROLE_VARIABLES = frozenset({"AWS_ROLE_ARN", "AZURE_CLIENT_ID", "ALIBABA_CLOUD_ROLE_ARN"})
_MAX_REPOSITORY = 512
_WORDS = re.compile(r"[\s=,;|&()\[\]{}<>\\#!*$^\"'`]+")
# Fields of a custom resource that hold a command. Other texts, such as descriptions, only count as a whole.
_COMMANDS = re.compile(r"args?|arguments|cmd|code|command|entrypoint|exec|run|script")
_REPOSITORY = re.compile(r"(?:(?:datasets|spaces)/)?[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(?:/|\Z)")
# Values of Secrets below this length are names and numbers, not credentials.
_MIN_CREDENTIAL = 16
# Transports of containers/image and skopeo.
_TRANSPORT = re.compile(r"\A(?:containers-storage|docker|docker-daemon|oci|oras):(?=[^/\d])")
_PLAIN_HOST = re.compile(r"(?:https?://)?[a-z0-9-]+(?:\.[a-z0-9-]+)+\.?(?::\d+)?(?:/[\w./-]*)?", re.ASCII)


class _Text(NamedTuple):
    """A string of a document, and what its keys say about it."""

    path: str
    text: str
    key: str
    in_secret: bool
    in_account: bool


def gather_pod_stores(pod: PodView, context: Context) -> Iterator[WeightUse]:
    """Yield the object stores that a pod can read, by address, by Secret and by identity."""
    catalog = context.catalog
    if catalog.has_accounts:
        yield from _pod_identity(pod, context)
    if _names_stores(context) or catalog.has_secrets:
        lookup = context.finder.lookup
        for container_path, name, container in pod.containers:
            variables = container_variables(container, container_path, lookup)
            yield from _uses(container, container_path, context, containers=(name,), variables=variables)
            for config_map, key in _config_maps(container, container_path):
                yield from _config_values(config_map, key, container_path, name, context)
            if catalog.has_secrets and _compares(context):
                values = (digest for value in variables.values() for digest in _credentials_in(value))
                yield from _copies(values, f"{container_path}.env", context, containers=(name,))
        if catalog.has_secrets and _compares(context):
            for config_map, path in _config_volumes(pod):
                document = context.finder.get("ConfigMap", context.namespace, config_map)
                yield from _copies(_config_credentials(document or {}), path, context)
        yield from _metadata_values(pod, context)
        rest = {key: value for key, value in pod.spec.items() if not key.lower().endswith("containers")}
        yield from _uses(rest, pod.root, context)


def _metadata_values(pod: PodView, context: Context) -> Iterator[WeightUse]:
    """Yield what annotations name, where a container reads annotations as variables or files."""
    if pod.annotations and "metadata.annotations" in str(
        [pod.volumes] + [list_at(container, "env", path) for path, _, container in pod.containers]
    ):
        yield from _uses(pod.annotations, "metadata.annotations", context)


def _config_maps(container: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Yield the ConfigMaps that a container's environment reads, each with a key, or empty for all keys."""
    for source in list_at(container, "envFrom", path):
        name = text_at(object_at(source, "configMapRef", path), "name", path)
        if name:
            yield name, ""
    for entry in list_at(container, "env", path):
        reference = object_at(object_at(entry, "valueFrom", path), "configMapKeyRef", path)
        name = text_at(reference, "name", path)
        if name:
            yield name, text_at(reference, "key", path)


def _config_volumes(pod: PodView) -> Iterator[tuple[str, str]]:
    """Yield the ConfigMaps that a pod mounts, each with its place."""
    for name_of, volume in pod.volumes.items():
        place = f"{pod.root}.volumes[{name_of}]"
        sources = [volume, *list_at(object_at(volume, "projected", place), "sources", f"{place}.projected")]
        for source in sources:
            name = text_at(object_at(source, "configMap", place), "name", place)
            if name:
                yield name, f"{place} of ConfigMap {name}"


def _config_values(
    config_map: str, key: str, path: str, container: str, context: Context
) -> Iterator[WeightUse]:
    names_stores, compares = _names_stores(context), context.catalog.has_secrets and _compares(context)
    if not names_stores and not compares:
        return
    document = context.finder.get("ConfigMap", context.namespace, config_map)
    data = object_at(document or {}, "data", "")
    values = {name: value for name, value in data.items() if key in ("", name)}
    place = f"{path}.env of ConfigMap {config_map}"
    if names_stores:
        yield from _uses(values, place, context, containers=(container,))
    if compares:
        yield from _copies(_config_credentials({"data": values}), place, context, containers=(container,))


def gather_custom(document: Document, context: Context) -> Iterator[WeightUse]:
    """Yield the object stores that a custom resource names, or reads by Secret or service account."""
    yield from _named_credentials(document, context)
    for key, value in document.items():
        if key not in ("apiVersion", "kind", "metadata", "status"):
            yield from _uses({key: value}, "", context, custom=True)
    for store in named_stores(document) if _names_stores(context) or context.catalog.has_images else ():
        context.finder.lookup.charge("buckets", 30)
        yield from _of_locations(store.locations, store.text, store.path, context, ())
        for model in context.catalog.of_image(store.image) if store.image else ():
            yield _use(model, "uri", store.path, image_detail(store.image))


# secretgen-controller shares the Secret of the same name with other namespaces.
_SHARING = frozenset({"SecretExport", "SecretImport"})


def _named_credentials(document: Document, context: Context) -> Iterator[WeightUse]:
    """Yield the declared Secrets and cloud roles that a custom resource reads, copies or assigns by reference."""
    catalog, namespace = context.catalog, context.namespace
    spec = document.get("spec")
    if catalog.has_secrets:
        for place, name, path in (*_shared_secret(document, namespace), *_secret_references(document)):
            for model in catalog.of_secret(place, name):
                yield _use(model, "secret", path, f"Secret {place or namespace}/{name}")
    if catalog.has_accounts:
        roles = _declared_roles(context)
        for leaf in _leaves(spec, "spec") if roles else ():
            role = leaf.text.strip().casefold()
            if (
                _ROLE_INSIDE.search(role) is None
                and _CLIENT_ID.fullmatch(role) is None
                and "role" not in leaf.key
            ):
                continue
            # Members and resources of a cloud name the account at their end.
            for text in dict.fromkeys((role, role.rpartition("/")[2], role.rpartition(":")[2])):
                for account, model in roles.get(text, ()):
                    detail = f"cloud role {text} of ServiceAccount {account}"
                    yield _use(model, "identity", leaf.path, detail)


def _shared_secret(document: Document, namespace: str) -> Iterator[tuple[str | None, str, str]]:
    if document.get("kind") in _SHARING:
        spec = document.get("spec")
        place = spec.get("fromNamespace") if isinstance(spec, dict) else None
        name = text_at(object_at(document, "metadata", ""), "name", "metadata")
        yield place if isinstance(place, str) else namespace, name, "metadata.name"


def _secret_references(document: Document) -> Iterator[tuple[str | None, str, str]]:
    """Yield (namespace, name, path) of references by kind, and of keys in a store of Secrets.

    A store of the provider ``kubernetes`` reads Secrets of the cluster (external-secrets/external-secrets). VolSync
    calls the Secret of a repository ``repository`` (backube/volsync api/v1alpha1).
    """
    kind = str(document.get("kind"))
    from_store, replicates = "Secret" in kind, kind.startswith("Replication")
    stack: list[tuple[Any, str, bool]] = [(document.get("spec"), "spec", False)]
    while stack:
        item, path, remote = stack.pop()
        if isinstance(item, list):
            stack.extend((member, f"{path}[{index}]", remote) for index, member in enumerate(item))
        elif isinstance(item, dict):
            name, key, place = item.get("name"), item.get("key"), item.get("namespace")
            if item.get("kind") == "Secret" and isinstance(name, str):
                yield place if isinstance(place, str) else None, name, path
            if replicates:
                for field in _REPOSITORY_FIELDS & item.keys():
                    if isinstance(item[field], str):
                        yield None, item[field], f"{path}.{field}"
            if remote and from_store and isinstance(key, str):
                yield None, key.rpartition("/")[2], f"{path}.key"
            stack.extend(
                (member, f"{path}.{field}", field in _REMOTE_FIELDS) for field, member in item.items()
            )


_REMOTE_FIELDS = frozenset({"remoteRef", "extract"})
_REPOSITORY_FIELDS = frozenset({"rcloneConfig", "repository"})


def _declared_roles(context: Context) -> dict[str, list[tuple[str, Model]]]:
    roles: dict[str, list[tuple[str, Model]]] = {}
    for namespace, name, models in _accounts(context):
        for _, role in _account_roles(namespace, name, context):
            roles.setdefault(role.casefold(), []).extend((f"{namespace}/{name}", model) for model in models)
    return roles


def gather_secret(document: Document, context: Context) -> Iterator[WeightUse]:
    """Yield the models whose credentials a Secret of another name would hold a copy of."""
    metadata = object_at(document, "metadata", "")
    name = text_at(metadata, "name", "metadata")
    yield from _annotated_secret(document, metadata, context)
    yield from _copies(_credentials(document), "data", context, own=(context.namespace, name))


def gather_config_map(document: Document, context: Context) -> Iterator[WeightUse]:
    """Yield the models whose credentials a ConfigMap would hold a copy of."""
    yield from _copies(_config_credentials(document), "data", context)


def _copies(
    credentials: Iterable[bytes],
    path: str,
    context: Context,
    *,
    own: tuple[str, str] | None = None,
    containers: tuple[str, ...] = (),
) -> Iterator[WeightUse]:
    """Yield the models whose Secrets share a credential, given as digests; ``own`` is a Secret that may."""
    values = set(credentials) if context.catalog.has_secrets else set()
    if not values:
        return
    for namespace, other, models in _secrets(context):
        if (namespace, other) == own:
            continue
        original = _readable_secret(namespace, other, context)
        if original is not None and _share(values, set(_credentials(original))):
            detail = f"a copy of Secret {namespace}/{other}"
            yield from (_use(model, "secret", path, detail, containers) for model in models)


_TOKEN_TYPE = "kubernetes.io/service-account-token"  # noqa: S105 - a type of Secret
_TOKEN_ACCOUNT = "kubernetes.io/service-account.name"  # noqa: S105 - an annotation


def _annotated_secret(
    document: Document, metadata: Mapping[str, Any], context: Context
) -> Iterator[WeightUse]:
    """Yield the models whose Secret a controller would copy into this one, or whose service account's token it holds.

    Replicators name the original as ``namespace/name`` (emberstack/kubernetes-reflector,
    mittwald/kubernetes-replicator).
    """
    annotations = object_at(metadata, "annotations", "metadata")
    if document.get("type") == _TOKEN_TYPE and context.catalog.has_accounts:
        account = annotations.get(_TOKEN_ACCOUNT)
        for model in (
            context.catalog.of_account(context.namespace, account) if isinstance(account, str) else ()
        ):
            detail = f"a token of ServiceAccount {context.namespace}/{account}"
            yield _use(model, "identity", "metadata.annotations", detail)
    if not context.catalog.has_secrets:
        return
    own = text_at(metadata, "name", "metadata")
    for key, value in annotations.items():
        if isinstance(value, str) and value.count("/") == 1:
            namespace, _, name = value.strip().partition("/")
            if (namespace, name) != (context.namespace, own):
                for model in context.catalog.of_secret(namespace, name):
                    detail = f"a copy of Secret {namespace}/{name} by annotation {key}"
                    yield _use(model, "secret", "metadata.annotations", detail)


def gather_token(account: str, context: Context) -> Iterator[WeightUse]:
    """Yield the models that a token of a service account gives access to: a cloud exchanges it for the role."""
    for model in context.catalog.of_account(context.namespace, account):
        yield _use(model, "identity", "", f"a token of ServiceAccount {context.namespace}/{account}")


def gather_account(document: Document, context: Context) -> Iterator[WeightUse]:
    """Yield the models that a service account can read through a cloud role of a declared service account."""
    metadata = object_at(document, "metadata", "")
    name = text_at(metadata, "name", "metadata")
    roles = _roles(metadata)
    if not roles or any(True for _ in context.catalog.of_account(context.namespace, name)):
        return
    for namespace, other, models in _accounts(context):
        existing = _account_roles(namespace, other, context)
        for _, role in roles:
            if not any(_same_role(role, value) for _, value in existing):
                continue
            detail = f"cloud role {role} of ServiceAccount {namespace}/{other}"
            yield from (_use(model, "identity", "metadata.annotations", detail) for model in models)


def _names_stores(context: Context) -> bool:
    catalog, volumes = context.catalog, context.catalog.backends
    return (
        catalog.has_uris or catalog.holds("", _SPACES) or (volumes is not None and volumes.holds("", _SPACES))
    )


def _uses(
    value: Any,
    path: str,
    context: Context,
    *,
    containers: tuple[str, ...] = (),
    custom: bool = False,
    variables: Mapping[str, str] | None = None,
) -> Iterator[WeightUse]:
    """Yield what the strings inside a value name."""
    catalog, namespace = context.catalog, context.namespace
    for read in _leaves(value, path):
        leaf = read
        if variables is not None and "$" in read.text:
            leaf = read._replace(text=expanded(read.text, variables, context.finder.lookup))
        for uri in dict.fromkeys(uris_in(leaf.text)):
            context.finder.lookup.charge("addresses", 20 + len(uri) // 50)
            yield from _of_uri(uri, leaf.path, context, containers)
            if custom:
                yield from _of_reference(uri, leaf.path, context)
        if ("/" in leaf.text or ":" in leaf.text) and not leaf.key.startswith("image"):
            yield from _of_repository(leaf, context, containers, custom=custom)
        if leaf.in_secret and catalog.has_secrets:
            # A driver or an operator may read Secrets of any namespace.
            anywhere = custom or ".volumeAttributes." in leaf.path or not namespace
            for model in catalog.of_secret(None if anywhere else namespace, leaf.text):
                yield _use(model, "secret", leaf.path, f"Secret {namespace}/{leaf.text}", containers)
        if custom and catalog.has_accounts and leaf.in_account:
            for model in catalog.of_account(namespace or None, leaf.text):
                yield _use(
                    model, "identity", leaf.path, f"ServiceAccount {namespace}/{leaf.text}", containers
                )


def _of_uri(uri: str, path: str, context: Context, containers: tuple[str, ...]) -> Iterator[WeightUse]:
    target = parse_uri(uri)
    image = target.image or https_image(uri)
    for model in context.catalog.of_image(image) if image else ():
        yield _use(model, "uri", path, image_detail(image), containers)
    yield from _of_locations(target.locations, uri, path, context, containers)


def _of_reference(uri: str, path: str, context: Context) -> Iterator[WeightUse]:
    """Yield what an address inside the cluster reaches: a claim, a path of the node, or a Dataset of Fluid."""
    scheme, _, rest = uri.partition("://")
    scheme = scheme.lower()
    if scheme == "pvc" and context.namespace:
        refs = context.resolver.claim(context.namespace, rest.partition("/")[0])
    elif scheme in ("hostpath", "local", "file"):
        backend = backend_of({"hostPath": {"path": f"/{rest.lstrip('/')}"}}, path, inline=True)
        refs = context.resolver.backend(backend) if backend is not None else ()
    elif scheme == "dataset":
        yield WeightUse("?", "?", path, "uri", detail=f"{uri}: data of another Dataset")
        return
    else:
        return
    for ref in refs:
        yield _use(ref.model, ref.via, path, ref.detail)


def _of_repository(
    leaf: _Text, context: Context, containers: tuple[str, ...], *, custom: bool
) -> Iterator[WeightUse]:
    """Yield the hub repositories that are named without a scheme, as vLLM and transformers accept them."""
    whole = custom and _COMMANDS.fullmatch(leaf.key) is None
    words = [leaf.text.strip()] if whole else dict.fromkeys(_WORDS.split(leaf.text))
    for text in words:
        if not ("/" in text or ":" in text) or len(text) > _MAX_REPOSITORY or "://" in text:
            continue
        word = _TRANSPORT.sub("", text, count=1)
        context.finder.lookup.charge("names of repositories", 10)
        name = word.partition("@")[0].partition(":")[0]
        repository = _REPOSITORY.match(name)
        if repository is not None:
            for location in hub(name):
                if location.name:
                    yield from _of_locations((location,), f"hf://{name}", leaf.path, context, containers)
        yield from _of_locations(parse_bare(word).locations, word, leaf.path, context, containers)
        # An image volume is a use of its own.
        if context.catalog.has_images and is_qualified(word) and not leaf.path.endswith(".image.reference"):
            image = https_image(f"https://{word}") or word
            for model in context.catalog.of_image(image):
                yield _use(model, "uri", leaf.path, image_detail(image), containers)


def _of_locations(
    locations: Iterable[Location], text: str, path: str, context: Context, containers: tuple[str, ...]
) -> Iterator[WeightUse]:
    volumes = context.catalog.backends
    for place in locations:
        location, prefix = _without_pattern(place)
        for entry, model, relation in context.catalog.of_location(location):
            if not _may_match(entry.path, location.path, prefix):
                continue
            certain = relation is Relation.SAME
            detail = text if certain else f"{text} may be {entry}"
            yield _use(model if certain else UNKNOWN, "uri", path, detail, containers)
        for match in volumes.at(location) if volumes is not None else ():
            if match.location is not None and not _may_match(match.location.path, location.path, prefix):
                continue
            certain = match.relation is Relation.SAME
            detail = f"{text}, the storage of PersistentVolume {match.volume.name}"
            for model in match.volume.models:
                yield _use(model if certain else UNKNOWN, "uri", path, detail, containers)


# What a client or a shell replaces: patterns, lists and variables.
_PATTERN = re.compile(r"[*?\[{$]")


def _without_pattern(location: Location) -> tuple[Location, str]:
    """Return the directory above the first pattern of a path, and what a name in it must start with."""
    pattern = _PATTERN.search(location.path)
    if pattern is None:
        return location, ""
    parent, _, prefix = location.path[: pattern.start()].rpartition("/")
    return location._replace(path=parent or "/", vague=True), prefix


def _may_match(path: str, parent: str, prefix: str) -> bool:
    """Whether a path that touches ``parent`` contains it, or starts with ``prefix`` below it."""
    if not prefix or path_within(parent, path):
        return True
    name = path.removeprefix(parent).lstrip("/")
    return is_glob(path) or name.startswith(prefix)


def _pod_identity(pod: PodView, context: Context) -> Iterator[WeightUse]:
    catalog, namespace = context.catalog, context.namespace
    name = (
        text_at(pod.spec, "serviceAccountName", pod.root)
        or text_at(pod.spec, "serviceAccount", pod.root)
        or "default"
    )
    path = f"{pod.root}.serviceAccountName"
    own_models = set(catalog.of_account(namespace, name))
    for model in sorted(own_models):
        yield _use(model, "identity", path, f"ServiceAccount {namespace}/{name}")
    account = context.finder.get("ServiceAccount", namespace, name)
    roles = _roles(object_at(account or {}, "metadata", ""))
    role = pod.annotations.get(_POD_ROLE)
    if isinstance(role, str) and role.strip():
        roles.add((_POD_ROLE, role.strip()))
    for container_path, _, container in pod.containers:
        roles.update(_container_roles(container, container_path, context))
    if not roles:
        return
    for other_namespace, other, models in _accounts(context):
        for kind, value in roles:
            if any(_same_role(value, known) for _, known in _account_roles(other_namespace, other, context)):
                detail = f"cloud role {value} ({kind}) of ServiceAccount {other_namespace}/{other}"
                yield from (
                    _use(model, "identity", path, detail) for model in models if model not in own_models
                )


def _container_roles(container: Mapping[str, Any], path: str, context: Context) -> Iterator[tuple[str, str]]:
    """Yield the roles that a container names, with the field, by a variable of the cloud or by their form."""
    variables = container_variables(container, path, context.finder.lookup)
    for name, value in variables.items():
        if name in _ROLE_VARIABLES and value.strip():
            yield name, value.strip()
    for leaf in _leaves(container, path):
        if _ROLE_MARK.search(leaf.text) is not None:
            for word in _WORDS.split(expanded(leaf.text, variables, context.finder.lookup)):
                if _ROLE.fullmatch(word) is not None:
                    yield leaf.path, word


_ROLE_MARK = re.compile(r"arn:aws|gserviceaccount|acs:ram|qcs::cam|trn:iam", re.IGNORECASE)


def _same_role(one: str, other: str) -> bool:
    # kube2iam, kiam and Alibaba's webhook accept the name of a role instead of its resource name.
    one, other = one.casefold(), other.casefold()
    return one == other or one.endswith(f":role/{other}") or other.endswith(f":role/{one}")


def _roles(metadata: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return the annotations that give a service account or a pod a cloud role, as (key, role)."""
    annotations = object_at(metadata, "annotations", "metadata")
    return {
        (key, value.strip())
        for key, value in annotations.items()
        if isinstance(value, str)
        and value.strip()
        and (key in ROLE_ANNOTATIONS or _ROLE.fullmatch(value.strip()) is not None)
    }


def _account_roles(namespace: str, name: str, context: Context) -> set[tuple[str, str]]:
    account = context.finder.get("ServiceAccount", namespace, name)
    return _roles(object_at(account or {}, "metadata", ""))


def _accounts(context: Context) -> Iterator[tuple[str, str, tuple[Model, ...]]]:
    """Yield the declared service accounts that exist or are named without wildcards, with their models."""
    names = set(context.catalog.account_names)
    for document in context.finder.lookup.each("ServiceAccount"):
        names.add((document["metadata"].get("namespace", ""), document["metadata"]["name"]))
    for namespace, name in sorted(names):
        models = tuple(sorted(set(context.catalog.of_account(namespace, name))))
        if models:
            yield namespace, name, models


def _secrets(context: Context) -> Iterator[tuple[str, str, tuple[Model, ...]]]:
    names = set(context.catalog.secret_names)
    for document in context.finder.lookup.each("Secret"):
        names.add((document["metadata"].get("namespace", ""), document["metadata"]["name"]))
    for namespace, name in sorted(names):
        models = tuple(sorted(set(context.catalog.of_secret(namespace, name))))
        if models:
            yield namespace, name, models


def _compares(context: Context) -> bool:
    """Whether values are compared with those of the declared Secrets."""
    return context.settings.storage.compare_secrets or context.finder.lookup.store.complete


def _readable_secret(namespace: str, name: str, context: Context) -> Document | None:
    """Return a declared Secret; only if the setting allows reads are Secrets fetched from a cluster."""
    lookup = context.finder.lookup
    if _compares(context):
        return context.finder.get("Secret", namespace, name)
    return lookup.store.get(ObjectKey("Secret", namespace, name))


def _credentials(document: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the digests of a Secret's values that may be credentials."""
    for value in object_at(document, "stringData", "").values():
        yield from _credentials_in(value)
    for value in object_at(document, "data", "").values():
        yield from _credentials_in(_decoded(value))


def _config_credentials(document: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the digests of a ConfigMap's values that may be credentials, also in base64 as in a Secret's manifest."""
    for value in object_at(document, "data", "").values():
        yield from _credentials_in(value)
        yield from _credentials_in(_decoded(value))
    for value in object_at(document, "binaryData", "").values():
        yield from _credentials_in(_decoded(value))


def _decoded(value: Any) -> bytes | None:
    try:
        return base64.b64decode("".join(value.split()), validate=True) if isinstance(value, str) else None
    except (binascii.Error, ValueError):
        return None


def _credentials_in(value: Any) -> Iterator[bytes]:
    """Yield the digests of a value and of the words in it that may be credentials."""
    if not isinstance(value, (str, bytes)):
        return
    raw = (value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value).strip()
    if raw.startswith(b"-----BEGIN CERTIFICATE"):
        # A CA certificate is public.
        return
    if len(raw) >= _MIN_CREDENTIAL and _PLAIN_HOST.fullmatch(raw.decode("latin-1")) is None:
        yield hashlib.sha256(raw).digest()
    # A configuration file can hold the credential.
    for word in _WORD.findall(raw[:_MAX_CREDENTIAL_FILE])[:_MAX_WORDS]:
        if word != raw and all(part.search(word) is not None for part in _MIXED):
            yield hashlib.sha256(word).digest()


_WORD = re.compile(rb"[A-Za-z0-9+/_.~-]{20,}={0,2}")
_MIXED = (re.compile(rb"[a-z]"), re.compile(rb"[A-Z]"), re.compile(rb"[0-9]"))
_MAX_CREDENTIAL_FILE = 65536
_MAX_WORDS = 256


def _share(one: set[bytes], other: set[bytes]) -> bool:
    matches = [hmac.compare_digest(first, second) for first in one for second in other]
    return any(matches)


def _leaves(value: Any, path: str) -> Iterator[_Text]:
    """Yield the strings inside a value, each with its key."""
    stack: list[tuple[Any, str, str, bool, bool]] = [(value, path, "", False, False)]
    while stack:
        item, place, key, in_secret, in_account = stack.pop()
        if isinstance(item, str):
            yield _Text(place, item, key, in_secret, in_account)
        elif isinstance(item, dict):
            refers = item.get("kind") == "ServiceAccount" and ".subjects[" not in place
            for name, member in item.items():
                lower = name.lower()
                secret = in_secret or "secret" in lower or "credential" in lower
                account = in_account or "serviceaccount" in lower or (refers and name == "name")
                stack.append((member, f"{place}.{name}" if place else name, lower, secret, account))
        elif isinstance(item, list):
            stack.extend(
                (member, f"{place}[{index}]", key, in_secret, in_account) for index, member in enumerate(item)
            )


def _use(model: Model, via: str, path: str, detail: str, containers: tuple[str, ...] = ()) -> WeightUse:
    return WeightUse(model.name, model.sensitivity, path, via, True, containers, detail[:256])
