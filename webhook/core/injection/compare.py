"""Whether a sidecar is the one that Weightlock injects, by meaning and not by spelling.

Other admission plugins write to the pod after Weightlock: SCCs drop further capabilities and choose a user,
AlwaysPullImages sets the pull policy, LimitRanger adds defaults, the API server normalises quantities. A change that
only restricts the sidecar, or only spells it differently, is tolerated. The image, the arguments, the mounts, the added
capabilities and the privileges stay exact, and so does every field that this module does not name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.cel.libraries.quantity import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from webhook.core.kube.fields import Document

_COMPUTE = frozenset({"cpu", "memory", "ephemeral-storage"})
_PULL_POLICIES = frozenset({"Always", "IfNotPresent", "Never"})
_API_TOKEN_VOLUME = "kube-api-access-"  # noqa: S105 - the beginning of a volume's name
_API_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105
# SELinux types of ordinary containers (k8s.io/pod-security-admission, policy/check_seLinuxOptions.go).
_CONTAINER_TYPES = frozenset(
    {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
)


def same_container(
    actual: Document,
    expected: Document,
    *,
    images: frozenset[str],
    authority: str,
    authorities: frozenset[str],
    running: bool = False,
) -> bool:
    """Report whether a container means the same as the expected sidecar.

    ``images`` are accepted in addition to the expected one. ``authorities`` are the CAs that an argument with the
    prefix ``authority`` may name. A ``running`` sidecar may have other compute resources, which are resized in place,
    and the pull policy of an earlier setting: its image is pulled already.
    """
    for field in actual.keys() | expected.keys():
        have, want = actual.get(field), expected.get(field)
        if have == want:
            continue
        if field == "image":
            same = isinstance(have, str) and have in images
        elif field == "args":
            same = _same_arguments(have, want, authority, authorities)
        elif field == "resources" and running:
            same = _is_compute(have)
        elif field == "imagePullPolicy" and running:
            same = isinstance(have, str) and have in _PULL_POLICIES
        elif field in _FIELDS:
            same = _FIELDS[field](have, want)
        else:
            same = not have and not want
        if not same:
            return False
    return True


def same_volume(actual: Document, expected: Document) -> bool:
    """Whether a volume means the same; a size may be spelled differently."""
    if actual == expected:
        return True
    return _without_size(actual) == _without_size(expected) and same_quantity(_size(actual), _size(expected))


def same_mounts(actual: list[Document], expected: list[Document]) -> bool:
    """Whether two lists contain the same mounts, in any order, with defaults written out or not."""
    return _sorted(actual) == _sorted(expected)


def same_quantity(actual: Any, expected: Any) -> bool:
    """Whether two quantities are equal: ``0.1`` and ``100m``, ``1024Ki`` and ``1Mi``."""
    if actual == expected:
        return True
    try:
        return parse(str(actual)).compare(parse(str(expected))) == 0
    except ValueError:
        return False


def _same_pull_policy(have: Any, _want: Any) -> bool:
    """AlwaysPullImages sets ``Always``, which only restricts who can use an image of the node."""
    return bool(have == "Always")


def _same_resources(have: Any, want: Any) -> bool:
    """Equal quantities in any spelling. Requests may be larger, and other compute resources may have defaults."""
    if not _is_compute(have):
        return False
    have, want = have or {}, want or {}
    return all(
        name in (have.get(side) or {}) and _is_enough(side, have[side][name], amount)
        for side in ("requests", "limits")
        for name, amount in (want.get(side) or {}).items()
    )


def _is_enough(side: str, have: Any, want: Any) -> bool:
    if side == "limits":
        return same_quantity(have, want)
    try:
        return parse(str(have)).compare(parse(str(want))) >= 0
    except ValueError:
        return False


def _is_compute(resources: Any) -> bool:
    """Whether resources are compute resources only: devices and claims give access to something."""
    if resources is None:
        return True
    if not isinstance(resources, dict) or not resources.keys() <= {"requests", "limits"}:
        return False
    return all(
        side is None or (isinstance(side, dict) and side.keys() <= _COMPUTE) for side in resources.values()
    )


def _same_probe(have: Any, want: Any) -> bool:
    """Equal, except for the number of attempts: it gives access to nothing."""
    if not isinstance(have, dict) or not isinstance(want, dict):
        return False
    return _present({**have, "failureThreshold": None}) == _present({**want, "failureThreshold": None})


def _same_mounts_of_agent(have: Any, want: Any) -> bool:
    if not isinstance(have, list) or not all(isinstance(mount, dict) for mount in have):
        return False
    return same_mounts([mount for mount in have if not _is_api_token(mount)], want or [])


def _is_api_token(mount: Document) -> bool:
    """Whether a mount is the one that the ServiceAccount admission plugin adds."""
    return str(mount.get("name")).startswith(_API_TOKEN_VOLUME) and _present(mount) == {
        "name": mount.get("name"),
        "readOnly": True,
        "mountPath": _API_TOKEN_PATH,
    }


def _is_resize_policy(have: Any, want: Any) -> bool:
    """How a change of resources is applied: the API server may write the default out."""
    return (
        not want
        and isinstance(have, list)
        and all(isinstance(item, dict) and item.keys() <= {"resourceName", "restartPolicy"} for item in have)
    )


def _same_arguments(have: Any, want: Any, authority: str, authorities: frozenset[str]) -> bool:
    """Equal, except for the CAs of the broker: they are renewed while the pod runs."""
    if not isinstance(have, list) or not all(isinstance(word, str) for word in have):
        return False
    words = [word for word in have if word.startswith(authority)]
    others = [word for word in have if not word.startswith(authority)]
    return (
        others == [word for word in want or () if not word.startswith(authority)]
        and bool(words)
        and len(set(words)) == len(words)
        and {word.removeprefix(authority) for word in words} <= authorities
    )


def _same_context(have: Any, want: Any) -> bool:
    """Equal, or stricter."""
    have, want = have or {}, want or {}
    if not isinstance(have, dict) or not isinstance(want, dict):
        return False
    for field in have.keys() | want.keys():
        actual, expected = have.get(field), want.get(field)
        if actual == expected:
            continue
        stricter = _STRICTER.get(field)
        if stricter is None or not stricter(actual, expected):
            return False
    return True


def _only(value: Any) -> Callable[[Any, Any], bool]:
    return lambda actual, _expected: actual is value


def _unset(accepts: Callable[[Any], bool]) -> Callable[[Any, Any], bool]:
    """A field that Weightlock leaves to the platform."""
    return lambda actual, expected: expected is None and accepts(actual)


def _is_id(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_default_profile(value: Any) -> bool:
    return isinstance(value, dict) and _present(value) == {"type": "RuntimeDefault"}


def _confines(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() <= {"level", "type", "user", "role"}
        and value.get("type") in _CONTAINER_TYPES
        and not value.get("user")
        and not value.get("role")
    )


def _fewer_capabilities(actual: Any, expected: Any) -> bool:
    actual, expected = actual or {}, expected or {}
    if not isinstance(actual, dict) or not isinstance(expected, dict):
        return False
    if not actual.keys() | expected.keys() <= {"add", "drop"}:
        return False
    added, dropped = _names(actual.get("add")), _names(actual.get("drop"))
    if added is None or dropped is None:
        return False
    return added == _names(expected.get("add")) and dropped >= (_names(expected.get("drop")) or frozenset())


def _names(capabilities: Any) -> frozenset[str] | None:
    if capabilities is None:
        return frozenset()
    if not isinstance(capabilities, list) or not all(isinstance(name, str) for name in capabilities):
        return None
    return frozenset(name.removeprefix("CAP_") for name in capabilities)


def _present(document: Mapping[str, Any]) -> Document:
    return {key: value for key, value in document.items() if value is not None}


_MOUNT_DEFAULTS: Document = {"readOnly": False, "recursiveReadOnly": "Disabled", "mountPropagation": "None"}


def _sorted(mounts: list[Document]) -> list[list[tuple[str, str]]]:
    """Mounts without the values that are defaults anyway."""
    return sorted(
        sorted(
            (key, repr(value))
            for key, value in mount.items()
            if value is not None and _MOUNT_DEFAULTS.get(key) != value
        )
        for mount in mounts
    )


def _size(volume: Document) -> Any:
    memory = volume.get("emptyDir")
    return memory.get("sizeLimit") if isinstance(memory, dict) else None


def _without_size(volume: Document) -> Document:
    memory = volume.get("emptyDir")
    if not isinstance(memory, dict):
        return _present(volume)
    return _present({**volume, "emptyDir": _present({**memory, "sizeLimit": None})})


_FIELDS: dict[str, Callable[[Any, Any], bool]] = {
    "imagePullPolicy": _same_pull_policy,
    "resizePolicy": _is_resize_policy,
    "resources": _same_resources,
    "securityContext": _same_context,
    "startupProbe": _same_probe,
    "volumeMounts": _same_mounts_of_agent,
}
_STRICTER: dict[str, Callable[[Any, Any], bool]] = {
    "allowPrivilegeEscalation": _only(value=False),
    "appArmorProfile": _unset(_is_default_profile),
    "capabilities": _fewer_capabilities,
    "privileged": _only(value=False),
    "procMount": _unset(lambda value: value == "Default"),
    "readOnlyRootFilesystem": _only(value=True),
    "runAsGroup": _unset(lambda value: _is_id(value, 0)),
    "runAsNonRoot": _only(value=True),
    "runAsUser": _unset(lambda value: _is_id(value, 1)),
    "seLinuxOptions": _unset(_confines),
    "seccompProfile": _unset(_is_default_profile),
}
