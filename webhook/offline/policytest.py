"""Policy tests: cases in YAML next to a policy, each a request with its expected verdict, evaluated as at admission.

A case is evaluated offline, on its own state. No file outside the directory of its file is read. An invalid file is an
error, and a policy that cannot be evaluated fails the case: neither ever passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from webhook.api.base import Schema
from webhook.api.config import Settings
from webhook.api.faults import describe
from webhook.core.admission.messages import warnings
from webhook.core.kube.review import REVIEW_API_VERSION
from webhook.manifests.reader import TEST_SUFFIX, Manifest, ManifestError, read_file, read_path
from webhook.offline.provider import ManifestProvider
from webhook.offline.review import Requester, account_groups, as_review, review

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from webhook.core.admission.verdict import Verdict
    from webhook.core.kube.fields import Document


class Who(Schema):
    """The requester: a user, or a service account as ``namespace/name``; neither: the pod's own service account."""

    user: str = ""
    service_account: str = Field(default="", pattern=r"^([^/]+/[^/]+)?$")
    groups: list[str] = Field(default_factory=list)
    extra: dict[str, list[str]] = Field(default_factory=dict)

    @property
    def username(self) -> str:
        """Return the username of the API server."""
        namespace, slash, name = self.service_account.partition("/")
        return f"system:serviceaccount:{namespace}:{name}" if slash else self.user


class Expectation(Schema):
    """The expected verdict. Omitted fields are not checked.

    ``codes`` are all codes of the denial in any order; ``message`` and ``fix`` are parts of a finding that denies, and
    ``warning`` of a warning.
    """

    allowed: bool
    codes: list[str] | None = None
    message: str = ""
    fix: str = ""
    warning: str = ""
    injected: bool | None = None


class Case(Schema):
    """One request.

    ``change`` is a merge patch (RFC 7396) on ``object``, so that cases can be variations of one object. ``resource``
    and ``objectName`` are for requests whose object does not name its resource, such as pods/exec; an empty
    ``namespace`` then means that the resource is cluster-scoped.
    """

    name: str = Field(min_length=1)
    who: Who | None = None
    operation: Literal["CREATE", "UPDATE", "DELETE", "CONNECT"] = "CREATE"
    resource: str = ""
    subresource: str = ""
    object_name: str = ""
    namespace: str | None = None
    object: dict[str, Any] | None = None
    change: dict[str, Any] = Field(default_factory=dict)
    old: dict[str, Any] | None = None
    state: list[dict[str, Any]] = Field(
        default_factory=list, description="objects in addition to those of the file"
    )
    expect: Expectation

    @model_validator(mode="after")
    def _has_an_object(self) -> Self:
        if self.object is None and not self.resource:
            raise ValueError("a case needs object, or resource and objectName")
        if self.operation == "UPDATE" and self.old is None:
            raise ValueError("an UPDATE needs old, the object as it was")
        return self


class Cases(Schema):
    """A file of cases.

    ``policies`` names policy files next to it, or is ``all``; by default the file of the same name. ``definitions`` is
    for YAML anchors.
    """

    policies: list[str] | Literal["all"] = Field(default_factory=list)
    settings: Settings = Field(default_factory=Settings)
    who: Who = Field(default_factory=Who)
    namespace: str = "default"
    definitions: Any = None
    state: list[dict[str, Any] | str] = Field(
        default_factory=list, description="objects, or names of files of them"
    )
    cases: list[Case] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one case. Without problems, it passed."""

    file: str
    case: str
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Report whether the case passed."""
        return not self.problems


class Suite:
    """The cases of one file, with their policies and state. Raises `ManifestError`."""

    def __init__(self, path: Path, policies: Sequence[Manifest] | None = None) -> None:
        self.path = path
        self._file = _read(path)
        self._policies = policies
        self._manifests: list[Manifest] = []
        self._source: ManifestProvider | None = None

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases, in the order of the file."""
        return tuple(self._file.cases)

    def run(self, case: Case) -> Result:
        """Evaluate one case. Raises `ManifestError` if its object is invalid."""
        return Result(str(self.path), case.name, tuple(_problems(case.expect, self.verdict(case))))

    def verdict(self, case: Case) -> Verdict:
        """Return the verdict on one case. Raises `ManifestError`."""
        return review(self.review_of(case), Requester(), self.source(case)).verdict

    def review_of(self, case: Case) -> Manifest:
        """The AdmissionReview of one case. Raises `ManifestError`."""
        place = f"{self.path}: {case.name}"
        try:
            return Manifest(place, _request(case, self._file, self.source(case)))
        except ValueError as error:
            raise ManifestError(f"{place}: {error}") from None

    def source(self, case: Case) -> ManifestProvider:
        """The state of one case: that of the file, with what the case adds. Raises `ManifestError`."""
        if self._source is None:
            policies = _policies(self.path, self._file) if self._policies is None else self._policies
            self._manifests = [*policies, *_state(self.path, self._file)]
            self._source = ManifestProvider(self._manifests, self._file.settings)
        if not case.state:
            return self._source
        own = [Manifest(f"{self.path}: {case.name}: state", document) for document in case.state]
        return ManifestProvider([*self._manifests, *own], self._file.settings, like=self._source)


def suites(path: Path) -> Iterator[Suite]:
    """Yield every test file at or below a path, by name. Raises `ManifestError` if a file is not a test file."""
    files = [path] if path.is_file() else sorted(path.rglob(f"*{TEST_SUFFIX}"))
    for file in files:
        yield Suite(file)


def _read(path: Path) -> Cases:
    documents = [manifest.document for manifest in read_file(path)]
    if len(documents) != 1:
        raise ManifestError(f"{path}: a test file is one YAML document")
    try:
        return Cases.model_validate(documents[0])
    except ValidationError as error:
        raise ManifestError(f"{path}: {describe(error)}") from None


def _policies(path: Path, file: Cases) -> Iterator[Manifest]:
    if file.policies == "all":
        yield from read_path(path.parent)
        return
    for name in file.policies or [path.name.removesuffix(TEST_SUFFIX) + ".yaml"]:
        yield from read_file(_beside(path, str(name)))


def _state(path: Path, file: Cases) -> Iterator[Manifest]:
    for item in file.state:
        if isinstance(item, str):
            yield from read_file(_beside(path, item))
        else:
            yield Manifest(f"{path}: state", item)


def _beside(path: Path, name: str) -> Path:
    """A file in the directory of the test file or below it. Raises `ManifestError`."""
    file = (path.parent / name).resolve()
    if not file.is_relative_to(path.parent.resolve()):
        raise ManifestError(f"{path}: {name} is not below {path.parent}")
    return file


def _request(case: Case, file: Cases, source: ManifestProvider) -> Document:
    """The AdmissionReview of a case. Raises `ValueError`."""
    who = case.who if case.who is not None else file.who
    namespace = file.namespace if case.namespace is None else case.namespace
    document = merged(case.object, case.change) if case.object is not None else None
    if case.resource:
        document_review = _named(case, who, namespace, document)
    else:
        requester = Requester(
            who.username, tuple(who.groups), namespace, case.operation, case.subresource, case.old
        )
        document_review = as_review(document or {}, requester, source.snapshot())
    if who.extra:
        document_review["request"]["userInfo"]["extra"] = who.extra
    return document_review


def _named(case: Case, who: Who, namespace: str, document: Document | None) -> Document:
    """The review of a request whose resource the case names itself."""
    resource, _, group = case.resource.partition(".")
    api_version = str((document or {}).get("apiVersion", "v1"))
    kind_group, _, version = api_version.rpartition("/")
    request: Document = {
        "uid": case.name[:256],
        "kind": {"group": kind_group, "version": version, "kind": str((document or {}).get("kind", ""))},
        "resource": {"group": group, "version": version, "resource": resource},
        "operation": case.operation,
        "name": case.object_name,
        "userInfo": {"username": who.username, "groups": [*who.groups, *account_groups(who.username)]},
        "object": document,
        "oldObject": case.old,
        "dryRun": False,
    }
    if case.subresource:
        request["subResource"] = case.subresource
    if namespace:
        request["namespace"] = namespace
    return {"apiVersion": REVIEW_API_VERSION, "kind": "AdmissionReview", "request": request}


def merged(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396) applied to a value; neither is changed."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def _problems(expected: Expectation, verdict: Verdict) -> Iterator[str]:
    """Yield each difference with the actual value."""
    actual = "; ".join(f"{item.message} [{item.code}]" for item in verdict.denials) or "no finding denies it"
    if verdict.allowed != expected.allowed:
        yield f"expected it to be {'allowed' if expected.allowed else 'denied'}: {actual}"
        return
    codes = sorted({item.code for item in verdict.denials})
    if expected.codes is not None and codes != sorted(set(expected.codes)):
        yield f"expected codes {', '.join(sorted(set(expected.codes)))}: {actual}"
    elif expected.codes is None and any(item.unevaluable for item in verdict.denials):
        yield f"a policy could not be evaluated: {actual}"
    if expected.message and not any(expected.message in item.message for item in verdict.denials):
        yield f"expected a message with {expected.message!r}: {actual}"
    fixes = [item.fix for item in verdict.denials]
    if expected.fix and not any(expected.fix in fix for fix in fixes):
        yield f"expected a fix with {expected.fix!r}: {'; '.join(fixes) or 'there is none'}"
    texts = list(warnings(verdict.warnings))
    if expected.warning and not any(expected.warning in text for text in texts):
        yield f"expected a warning with {expected.warning!r}: {'; '.join(texts) or 'there is none'}"
    if expected.injected is not None and verdict.injected != expected.injected:
        yield f"expected the key sidecar {'to be' if expected.injected else 'not to be'} added"
