"""Run the attack corpus against a set of policies.

The corpus is a directory of files in the format of policy tests, one file a class of attacks. A case that expects a
denial is an attack, any other is a benign workload. Your own policies have other codes, so any denial stops an attack,
except one that only reports an error.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.manifests.reader import TEST_STATE_SUFFIX, ManifestError
from webhook.offline.policytest import Suite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from webhook.manifests.reader import Manifest

_ENVIRONMENT = "WEIGHTLOCK_REDTEAM"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One case: an attack or a benign workload, and whether it was denied. ``messages`` are those of the denials."""

    group: str
    name: str
    attack: bool
    denied: bool
    codes: tuple[str, ...]
    messages: tuple[str, ...]
    expected: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether an attack was stopped, or a benign workload allowed."""
        return self.attack == self.denied


def corpus_directory() -> Path:
    """Return the directory of the shipped corpus. Raises `FileNotFoundError` if there is none."""
    checkout = Path(__file__).parents[2] / "tests" / "redteam"
    installed = Path(sys.prefix) / "share" / "weightlock" / "redteam"
    configured = os.environ.get(_ENVIRONMENT)
    for place in (Path(configured),) if configured else (checkout, installed):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"no attack corpus: set {_ENVIRONMENT} or give --corpus DIR")


def attempts(corpus: Path, policies: Sequence[Manifest]) -> Iterator[Attempt]:
    """Run every case of a corpus. Raises `ManifestError` for a file that is not part of one."""
    files = [file for file in sorted(corpus.glob("*.yaml")) if not file.name.endswith(TEST_STATE_SUFFIX)]
    if not files:
        raise ManifestError(f"{corpus}: no *.yaml files")
    for file in files:
        suite = Suite(file, policies)
        for case in suite.cases:
            denials = suite.verdict(case).denials
            decided = [finding for finding in denials if not finding.unevaluable]
            yield Attempt(
                group=file.stem,
                name=case.name,
                attack=not case.expect.allowed,
                denied=bool(decided) or (case.expect.allowed and bool(denials)),
                codes=tuple(sorted({finding.code for finding in denials})),
                messages=tuple(finding.message for finding in denials),
                expected=tuple(case.expect.codes or ()),
            )
