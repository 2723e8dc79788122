"""``weightlock explain --kind``: the pods and parts of pods that the schema of a custom resource shows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from webhook.api.operators import PRESETS
from webhook.app.errors import UsageError
from webhook.cli.state import load_settings
from webhook.core.kube.fields import MalformedObjectError
from webhook.core.workloads.kinds import BUILT_IN
from webhook.core.workloads.readers import READERS
from webhook.core.workloads.schema import KindSchema, scan
from webhook.core.workloads.templates import WorkloadTable
from webhook.manifests.reader import ManifestError, read_bytes, read_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from webhook.api.config import Settings

_WIDTH = 16


def explain_kinds(options: argparse.Namespace) -> int:
    """Print what each CustomResourceDefinition in the files shows. Raises `UsageError`."""
    settings = load_settings(options.config)
    schemas = [schema for name in options.files for schema in _schemas(name)]
    if not schemas:
        raise UsageError("the files contain no CustomResourceDefinition")
    answers = [_as_json(schema, settings) for schema in schemas]
    if options.output == "json":
        sys.stdout.write(orjson.dumps(answers, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        for answer in answers:
            _print(answer)
    return 0


def _schemas(name: str) -> Iterator[KindSchema]:
    try:
        manifests = (
            read_bytes(sys.stdin.buffer.read(), "standard input") if name == "-" else read_path(Path(name))
        )
        for manifest in manifests:
            if manifest.document.get("kind") == "CustomResourceDefinition":
                try:
                    yield scan(manifest.document)
                except MalformedObjectError as error:
                    raise UsageError(
                        f"{manifest.source}: cannot read the CustomResourceDefinition: {error}"
                    ) from None
    except (ManifestError, OSError) as error:
        raise UsageError(f"cannot read {name}: {error}") from None


def _as_json(schema: KindSchema, settings: Settings) -> dict[str, Any]:
    configured = next((entry for entry in settings.workloads if entry.kind == schema.kind), None)
    table = WorkloadTable(settings.workloads, [schema])
    sources = [
        source
        for source, applies in (
            ("built-in paths", schema.kind in BUILT_IN),
            ("a built-in reader", schema.kind in READERS),
            ("settings.workloads, instead of the schema", configured is not None),
            ("the schema", configured is None and schema.is_workload),
        )
        if applies
    ]
    return {
        "kind": schema.kind,
        "resource": schema.plural,
        "namespaced": schema.namespaced,
        "workload": schema.kind in table,
        "sources": sources,
        "operators": [name for name, preset in PRESETS.items() if schema.kind in preset.owns],
        "versions": {
            name: [{"part": str(match.part), "path": match.path} for match in matches]
            for name, matches in schema.versions.items()
        },
        "settings": list(configured.paths) if configured is not None else None,
    }


def _print(answer: dict[str, Any]) -> None:
    scope = "namespaced" if answer["namespaced"] else "cluster-scoped"
    verdict = "contains pods" if answer["workload"] else "contains no pods"
    print(f"{answer['kind']}  {verdict}  ({answer['resource']}, {scope})")
    if answer["sources"]:
        print(f"  read from: {', '.join(answer['sources'])}")
    if answer["operators"]:
        print(f"  operator presets: {', '.join(answer['operators'])}")
    if answer["settings"] is not None:
        print(f"  settings.workloads: {', '.join(answer['settings']) or 'no paths'}")
    for version, matches in answer["versions"].items():
        print(f"  {version}" if matches else f"  {version}  no matches")
        for match in matches:
            print(f"    {match['part']:<{_WIDTH}} {match['path'] or '(the whole object)'}")
