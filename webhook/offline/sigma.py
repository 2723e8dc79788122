"""Compile the detection rules for a SIEM with pySigma, which is an optional dependency (extra ``siem``).

The queries read the entries as CloudEvents JSON, the form that `weightlock audit export` sends. A rule that a format
cannot express is reported, never changed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from webhook.manifests.detections import read_documents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

FORMATS = ("elastic", "loki", "splunk", "sqlite")
_BACKENDS = {
    "elastic": ("sigma.backends.elasticsearch", "ESQLBackend"),
    "loki": ("sigma.backends.loki", "LogQLBackend"),
    "splunk": ("sigma.backends.splunk", "SplunkBackend"),
    "sqlite": ("sigma.backends.sqlite", "sqliteBackend"),
}


class Query(NamedTuple):
    """One compiled rule. ``query`` is empty if ``fault`` states why the format cannot express the rule.

    ``baseline`` is whether the rule compares with a baseline, which the query lacks.
    """

    name: str
    level: str
    query: str
    fault: str
    baseline: bool


class MissingBackendError(Exception):
    """pySigma or a backend is not installed. The message is one line."""


def compile_rules(files: Iterable[Path], target: str) -> list[Query]:
    """Compile all rules that raise alerts.

    Raises:
        MissingBackendError: pySigma or its backend is not installed.
        ManifestError: a file cannot be read.
    """
    convert, errors = _load(target)
    queries = []
    for path in files:
        documents = read_documents(path)
        for document in documents:
            if not _raises_alerts(document, documents):
                continue
            required = [each for each in documents if each is document or _needs(document, each, documents)]
            name, level = str(document.get("name", "")), str(document.get("level", ""))
            statistic = bool((document.get("weightlock") or {}).get("statistic"))
            try:
                query = convert([_plain(each) for each in required])
                queries.append(Query(name, level, query, "", statistic))
            except errors as error:
                queries.append(Query(name, level, "", " ".join(str(error).split())[:300], statistic))
    return queries


def _raises_alerts(document: dict[str, Any], documents: list[dict[str, Any]]) -> bool:
    """Return whether a rule raises alerts of its own: inner rules of a correlation do not."""
    name = document.get("name")
    for other in documents:
        correlation = other.get("correlation")
        if correlation and name in correlation.get("rules", ()) and not correlation.get("generate"):
            return False
        arrivals = ((other.get("weightlock") or {}).get("statistic") or {}).get("seen") or {}
        if name in arrivals and document.get("level") == "informational":
            return False
    return True


def _needs(document: dict[str, Any], other: dict[str, Any], documents: list[dict[str, Any]]) -> bool:
    """Return whether a correlation refers to another rule, directly or not."""
    rules = (document.get("correlation") or {}).get("rules", ())
    if other.get("name") in rules:
        return True
    inner = [each for each in documents if each.get("name") in rules and each.get("correlation")]
    return any(_needs(each, other, documents) for each in inner)


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """Return a rule without Weightlock's part, and with the type of the entry as a condition."""
    copy = {key: value for key, value in document.items() if key not in ("weightlock", "date")}
    if "correlation" in copy:
        copy["correlation"] = {key: value for key, value in copy["correlation"].items() if key != "generate"}
        return copy
    source = copy.get("logsource") or {}
    if source.get("product") == "weightlock" and source.get("service"):
        detection = dict(copy["detection"])
        conditions = detection["condition"]
        conditions = conditions if isinstance(conditions, list) else [conditions]
        detection["condition"] = [f"weightlock_type and ({each})" for each in conditions]
        copy["detection"] = {"weightlock_type": {"type": f"dev.weightlock.{source['service']}"}, **detection}
    return copy


def _load(target: str) -> tuple[Callable[[list[dict[str, Any]]], str], tuple[type[Exception], ...]]:
    """Return a function that compiles Sigma documents to the query of the last one, and its errors."""
    module, name = _BACKENDS[target]
    try:
        backend: Any = getattr(importlib.import_module(module), name)
        collection: Any = importlib.import_module("sigma.collection").SigmaCollection
        error: type[Exception] = importlib.import_module("sigma.exceptions").SigmaError
    except ImportError:
        raise MissingBackendError("pySigma is not installed: install weightlock[siem]") from None
    pipeline = _loki() if target == "loki" else None

    def convert(documents: list[dict[str, Any]]) -> str:
        results = backend(processing_pipeline=pipeline).convert(collection.from_dicts(documents))
        return str(results[-1])

    return convert, (error, NotImplementedError)


def _loki() -> Any:
    """Parse JSON, whose nested names LogQL joins with an underscore."""
    pipeline: Any = importlib.import_module("sigma.processing.pipeline")
    fields: Any = importlib.import_module("sigma.processing.transformations")
    loki: Any = importlib.import_module("sigma.pipelines.loki")
    return pipeline.ProcessingPipeline(
        items=[
            pipeline.ProcessingItem(
                fields.FieldFunctionTransformation({}, lambda name: name.replace(".", "_"))
            ),
            pipeline.ProcessingItem(loki.SetCustomAttributeTransformation("loki_parser", "json")),
        ]
    )
