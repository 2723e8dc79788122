"""Egress that cluster-wide network policies open for namespaces with weights, as escapes of kind ``clusterEgress``.

An allow rule of such a kind beats or extends a NetworkPolicy. The path names the rule and the namespace, the detail is
``cidr <network>``, ``namespace <name>`` or a description of another peer. A selector that cannot be read selects every
namespace.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from webhook.core.facts.model import Escape
from webhook.core.kube import calico
from webhook.core.kube.selectors import SelectorError, compile_selector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from webhook.core.facts.context import Context
    from webhook.core.kube.fields import Document

KIND = "clusterEgress"
LABEL = "weightlock.dev/holds-weights"
_NAME = "kubernetes.io/metadata.name"


class _Rule(NamedTuple):
    """One allow rule: where it stands, which namespaces it applies to, and its peers (empty: everything)."""

    path: str
    selects: Callable[[Mapping[str, Any]], bool]
    peers: tuple[str, ...]


def gather_egress(kind: str, document: Document, context: Context) -> tuple[Escape, ...]:
    """Return the peers that a cluster-wide policy opens for each namespace that is labelled as holding weights."""
    spaces = [
        labels | {_NAME: document["metadata"]["name"]}
        for document in context.finder.lookup.each("Namespace")
        if LABEL in (labels := _dict(document["metadata"].get("labels")))
    ]
    escapes = {
        Escape(KIND, f"{rule.path} for namespace {labels[_NAME]}", peer)
        for rule in (KINDS[kind](document) if spaces else ())
        for labels in spaces
        if rule.selects(labels)
        for peer in rule.peers or ("every network",)
    }
    return tuple(sorted(escapes))


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _strings(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _everything(_: Mapping[str, Any]) -> bool:
    return True


def _by_selector(selector: Any) -> Callable[[Mapping[str, Any]], bool]:
    """Return whether a label selector selects a namespace; one that is malformed selects every namespace."""
    if not isinstance(selector, dict):
        return _everything
    try:
        return compile_selector(selector).matches
    except SelectorError:
        return _everything


def _namespace_peers(selector: Any) -> list[str]:
    """Return the namespaces that a selector names, or a description of it."""
    selector = _dict(selector)
    name = _dict(selector.get("matchLabels")).get(_NAME)
    if isinstance(name, str):
        return [f"namespace {name}"]
    for expression in _dicts(selector.get("matchExpressions")):
        if (expression.get("key"), expression.get("operator")) == (_NAME, "In"):
            return [f"namespace {value}" for value in _strings(expression.get("values"))] or [
                "a namespace selector"
            ]
    return ["a namespace selector"]


def _admin(document: Document) -> Iterator[_Rule]:
    """AdminNetworkPolicy and ClusterNetworkPolicy (sigs.k8s.io/network-policy-api, apis/v1alpha1 and v1alpha2)."""
    spec = _dict(document.get("spec"))
    if spec.get("tier") == "Baseline":
        # It applies only to pods that no NetworkPolicy selects.
        return
    subject = _dict(spec.get("subject"))
    pods = _dict(subject.get("pods"))
    selects = _by_selector(pods.get("namespaceSelector") if pods else subject.get("namespaces"))
    for index, rule in enumerate(_dicts(spec.get("egress"))):
        if rule.get("action") in ("Allow", "Accept"):
            peers = [peer for item in _dicts(rule.get("to")) for peer in _admin_peers(item)]
            yield _Rule(f"spec.egress[{index}]", selects, tuple(peers))


def _admin_peers(peer: Mapping[str, Any]) -> list[str]:
    if "networks" in peer:
        return [f"cidr {network}" for network in _strings(peer["networks"])]
    if "namespaces" in peer:
        return _namespace_peers(peer["namespaces"])
    if "pods" in peer:
        return _namespace_peers(_dict(peer["pods"]).get("namespaceSelector"))
    return [f"peers by {', '.join(sorted(peer)) or 'nothing'}"]


_CILIUM_NAMESPACE = re.compile(r"(?:k8s[:.])?io\.kubernetes\.pod\.namespace")


def _cilium(document: Document) -> Iterator[_Rule]:
    """CiliumClusterwideNetworkPolicy (cilium/cilium pkg/policy/api/rule.go)."""
    for where, spec in (
        ("spec", _dict(document.get("spec"))),
        *((f"specs[{index}]", item) for index, item in enumerate(_dicts(document.get("specs")))),
    ):
        if "endpointSelector" not in spec:
            continue
        selects = _cilium_subject(_dict(spec["endpointSelector"]))
        for index, rule in enumerate(_dicts(spec.get("egress"))):
            yield _Rule(f"{where}.egress[{index}]", selects, tuple(_cilium_peers(rule)))


def _cilium_subject(selector: dict[str, Any]) -> Callable[[Mapping[str, Any]], bool]:
    for key, value in _dict(selector.get("matchLabels")).items():
        if _CILIUM_NAMESPACE.fullmatch(key):
            return lambda labels: labels[_NAME] == value
    by_labels = _cilium_labels(selector)
    if by_labels is not None:
        return by_labels
    for expression in _dicts(selector.get("matchExpressions")):
        names, operator = _strings(expression.get("values")), expression.get("operator")
        if _CILIUM_NAMESPACE.fullmatch(str(expression.get("key"))) and operator in ("In", "NotIn"):
            return lambda labels: (labels[_NAME] in names) is (operator == "In")
    return _everything


_CILIUM_LABEL = re.compile(r"(?:k8s[:.])?io\.cilium\.k8s\.namespace\.labels\.(.+)")


def _cilium_labels(selector: dict[str, Any]) -> Callable[[Mapping[str, Any]], bool] | None:
    """Return the test for the labels of a namespace that a selector contains; None where it contains none."""
    labels = {
        match[1]: value
        for key, value in _dict(selector.get("matchLabels")).items()
        if (match := _CILIUM_LABEL.fullmatch(key)) is not None
    }
    expressions = [
        expression | {"key": match[1]}
        for expression in _dicts(selector.get("matchExpressions"))
        if (match := _CILIUM_LABEL.fullmatch(str(expression.get("key")))) is not None
    ]
    if not labels and not expressions:
        return None
    return _by_selector({"matchLabels": labels, "matchExpressions": expressions})


def _cilium_peers(rule: Mapping[str, Any]) -> Iterator[str]:
    fields = [key for key in rule if key.startswith("to") and key != "toPorts"]
    for key in fields:
        value = rule[key]
        if key == "toCIDR":
            yield from (f"cidr {network}" for network in _strings(value))
        elif key == "toCIDRSet":
            yield from (
                f"cidr {item['cidr']}" if "cidr" in item else "a CIDR group" for item in _dicts(value)
            )
        elif key == "toEndpoints":
            for endpoint in _dicts(value):
                names = [
                    name
                    for label, name in _dict(endpoint.get("matchLabels")).items()
                    if _CILIUM_NAMESPACE.fullmatch(label)
                ]
                yield from (
                    (f"namespace {name}" for name in names) if names else ("endpoints of any namespace",)
                )
        elif value:
            yield f"peers by {key}"
        else:
            yield f"nothing by {key}"


_CALICO_EQUAL = re.compile(
    r"""\s*(?:kubernetes\.io/metadata\.name|projectcalico\.org/name)\s*==\s*(['"])([^'"]*)\1\s*"""
)
_CALICO_IN = re.compile(
    r"""\s*(?:kubernetes\.io/metadata\.name|projectcalico\.org/name)\s+in\s*\{([^}]*)\}\s*"""
)
# Labels that Calico gives to the endpoints of a namespace (libcalico-go/lib/backend/k8s/conversion).
_CALICO_NAME = "projectcalico.org/name"
_CALICO_NAMESPACE = "projectcalico.org/namespace"
_CALICO_LABEL = "pcns."


def _calico(document: Document) -> Iterator[_Rule]:
    """GlobalNetworkPolicy (projectcalico/api pkg/apis/projectcalico/v3/globalnetworkpolicy.go)."""
    spec = _dict(document.get("spec"))
    selects = _calico_subject(spec.get("namespaceSelector"), spec.get("selector"))
    for index, rule in enumerate(_dicts(spec.get("egress"))):
        # The stored form of the kind does not limit the spelling.
        if str(rule.get("action")).lower() in ("deny", "pass", "log"):
            continue
        target = _dict(rule.get("destination"))
        peers = [f"cidr {network}" for network in _strings(target.get("nets"))]
        if target.get("namespaceSelector"):
            names = _calico_names(target["namespaceSelector"])
            peers += (
                [f"namespace {name}" for name in names] if names is not None else ["a namespace selector"]
            )
        others = sorted(
            set(target) - {"nets", "namespaceSelector", "ports", "notPorts", "notNets", "selector"}
        )
        if target.get("selector") and not target.get("namespaceSelector"):
            others.append("selector")
        yield _Rule(f"spec.egress[{index}]", selects, tuple(peers + [f"peers by {name}" for name in others]))


def _calico_names(selector: Any) -> list[str] | None:
    text = selector if isinstance(selector, str) else ""
    equal, among = _CALICO_EQUAL.fullmatch(text), _CALICO_IN.fullmatch(text)
    if equal is not None:
        return [equal[2]]
    return [item.strip().strip("'\"") for item in among[1].split(",")] if among is not None else None


def _calico_subject(by_namespace: Any, by_endpoint: Any) -> Callable[[Mapping[str, Any]], bool]:
    """Return whether two selectors may select endpoints of a namespace. The labels of endpoints are not known."""

    def selects(labels: Mapping[str, Any]) -> bool:
        name = labels[_NAME]
        endpoint = {f"{_CALICO_LABEL}{key}": value for key, value in labels.items()}
        return _may_match(by_namespace, {**labels, _CALICO_NAME: name}, lambda _: True) and _may_match(
            by_endpoint,
            {**endpoint, f"{_CALICO_LABEL}{_CALICO_NAME}": name, _CALICO_NAMESPACE: name},
            lambda label: label.startswith(_CALICO_LABEL),
        )

    return selects


def _may_match(selector: Any, labels: Mapping[str, str], is_known: Callable[[str], bool]) -> bool:
    if not isinstance(selector, str) or not selector.strip():
        return True
    try:
        return calico.matches(selector, labels, is_known) is not False
    except calico.CalicoSelectorError:
        return True


def _antrea(document: Document) -> Iterator[_Rule]:
    """ClusterNetworkPolicy (antrea-io/antrea pkg/apis/crd/v1beta1/types.go)."""
    spec = _dict(document.get("spec"))
    if spec.get("tier") == "baseline":
        return
    for index, rule in enumerate(_dicts(spec.get("egress"))):
        if rule.get("action") != "Allow":
            continue
        applied = _dicts(rule.get("appliedTo")) or _dicts(spec.get("appliedTo"))
        subjects = [
            _by_selector(item.get("namespaceSelector")) for item in applied if "nodeSelector" not in item
        ]
        peers = [peer for item in _dicts(rule.get("to")) for peer in _antrea_peers(item)]
        peers += ["peers by toServices"] if rule.get("toServices") else []
        if rule.get("to") and not peers:
            continue
        yield _Rule(f"spec.egress[{index}]", _any(subjects) if applied else _everything, tuple(peers))


def _any(subjects: Iterable[Callable[[Mapping[str, Any]], bool]]) -> Callable[[Mapping[str, Any]], bool]:
    tests = tuple(subjects)
    return lambda labels: any(test(labels) for test in tests)


def _antrea_peers(peer: Mapping[str, Any]) -> list[str]:
    if "ipBlock" in peer:
        return [f"cidr {_dict(peer['ipBlock']).get('cidr')}"]
    if _dict(peer.get("namespaces")).get("match") == "Self":
        return []
    if "namespaceSelector" in peer:
        return _namespace_peers(peer["namespaceSelector"])
    return [f"peers by {', '.join(sorted(peer)) or 'nothing'}"]


KINDS: dict[str, Callable[[Document], Iterator[_Rule]]] = {
    "AdminNetworkPolicy.policy.networking.k8s.io": _admin,
    "ClusterNetworkPolicy.policy.networking.k8s.io": _admin,
    "CiliumClusterwideNetworkPolicy.cilium.io": _cilium,
    "GlobalNetworkPolicy.crd.projectcalico.org": _calico,
    "GlobalNetworkPolicy.projectcalico.org": _calico,
    "ClusterNetworkPolicy.crd.antrea.io": _antrea,
    "ClusterNetworkPolicy.crd.antrea.tanzu.vmware.com": _antrea,
    "ClusterNetworkPolicy.networking.k8s.aws": _admin,
}
