"""``weightlock policy redteam``: runs the attack corpus against the shipped policies, or your own."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from webhook.app.errors import UsageError
from webhook.manifests.reader import ManifestError, read_path
from webhook.manifests.shipped import shipped_policies
from webhook.offline.redteam import Attempt, attempts, corpus_directory

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from webhook.manifests.reader import Manifest

_POLICY_KINDS = frozenset({"WeightPolicy", "ValidatingAdmissionPolicy"})


def add_redteam(verbs: Any) -> None:
    """Register the verb."""
    parser = verbs.add_parser(
        "redteam",
        help="run the attack corpus against policies",
        description="Run attacks and benign workloads against policies. Exit code 0: all attacks stopped and all "
        "benign workloads allowed, 1: at least one was not, 2: bad input.",
    )
    parser.add_argument(
        "--policies", type=Path, metavar="DIR", help="directory of policies (default: the shipped ones)"
    )
    parser.add_argument(
        "--corpus", type=Path, metavar="DIR", help="directory of attacks (default: the shipped ones)"
    )
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    parser.set_defaults(run=run_redteam)


def run_redteam(options: argparse.Namespace) -> int:
    """Run every case and print the failures; 1 if there is one."""
    try:
        corpus = options.corpus or corpus_directory()
        results = list(attempts(_directory(corpus), _policies(options.policies or shipped_policies())))
    except (FileNotFoundError, ManifestError) as error:
        raise UsageError(str(error)) from None
    if options.output == "json":
        sys.stdout.write(orjson.dumps([_json(item) for item in results], option=orjson.OPT_INDENT_2).decode())
        sys.stdout.write("\n")
    else:
        _print(results)
    return 0 if all(item.good for item in results) else 1


def _directory(path: Path) -> Path:
    if not path.is_dir():
        raise UsageError(f"{path}: no such directory")
    return path


def _policies(path: Path) -> list[Manifest]:
    if not path.exists():
        raise UsageError(f"{path}: no such file or directory")
    manifests = list(read_path(path))
    if not any(manifest.document.get("kind") in _POLICY_KINDS for manifest in manifests):
        raise UsageError(f"{path}: no WeightPolicy and no ValidatingAdmissionPolicy")
    return manifests


def _print(results: Sequence[Attempt]) -> None:
    for item in results:
        if not item.good:
            problem = "NOT STOPPED" if item.attack else "DENIED"
            print(f"{problem}  {item.group}: {item.name}")
            for message in item.messages:
                print(f"        {message}")
    for group in dict.fromkeys(item.group for item in results):
        print(f"{group}: {_summary([item for item in results if item.group == group])}")
    print(f"redteam: {_summary(results)}")


def _summary(results: Sequence[Attempt]) -> str:
    attacks = [item for item in results if item.attack]
    benign = [item for item in results if not item.attack]
    stopped, allowed = sum(item.good for item in attacks), sum(item.good for item in benign)
    return f"{stopped}/{len(attacks)} stopped, {allowed}/{len(benign)} allowed"


def _json(item: Attempt) -> dict[str, Any]:
    return {"class": item.group} | {key: value for key, value in asdict(item).items() if key != "group"}
