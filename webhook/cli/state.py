"""Arguments that several commands share: the state directory, the policies and the settings file."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.api.config import Config, Settings
from webhook.app.configuration import read_config
from webhook.app.errors import UsageError
from webhook.core.admission.snapshot import POLICIES
from webhook.core.kube.objects import key_of
from webhook.manifests.foreign import foreign_files, foreign_policies
from webhook.manifests.reader import ManifestError, read_path
from webhook.manifests.shipped import shipped_policies, tested_policies
from webhook.offline.provider import ManifestProvider

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Iterable

    from webhook.core.kube.fields import Document
    from webhook.core.policies.match import RequestKind
    from webhook.manifests.reader import Manifest
    from webhook.offline.provider import ImageReader


def add_state_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add ``--state``, ``--policies`` and ``--config``."""
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        required=required,
        help="manifests of the objects in the cluster" + ("" if required else " (default: an empty cluster)"),
    )
    parser.add_argument(
        "--policies", type=Path, metavar="DIR", help="policies (default: the shipped policies)"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file with settings")


def load_source(
    options: argparse.Namespace,
    images: ImageReader | None = None,
    kinds: Collection[RequestKind] | None = None,
) -> ManifestProvider:
    """Return the provider of these arguments, and report policies that it does not evaluate. Raises `UsageError`.

    ``kinds`` are those of all requests that may follow, if they are known: other shipped policies are not compiled.
    """
    try:
        directory = options.policies or shipped_policies()
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None
    for path in (directory, *([options.state] if options.state else [])):
        if not path.exists():
            raise UsageError(f"{path}: no such directory")
    try:
        policies = list(read_path(directory))
        state = list(read_path(options.state)) if options.state else []
        foreign = [*foreign_policies(policies), *foreign_files(directory)]
        tested = _tested(directory, policies, state) if kinds is not None else frozenset()
        provider = ManifestProvider(
            [*policies, *state],
            load_settings(options.config),
            images=images,
            late=(tested, kinds) if kinds is not None else None,
        )
    except ManifestError as error:
        raise UsageError(str(error)) from None
    for sentence in foreign:
        print(f"weightlock: warning: {sentence}", file=sys.stderr)
    if not provider.snapshot().policies and not _policies_of(policies):
        raise UsageError(
            f"{directory}: no policy to evaluate: Weightlock evaluates WeightPolicy, and "
            "ValidatingAdmissionPolicy with its binding"
        )
    return provider


def _tested(directory: Path, policies: list[Manifest], state: list[Manifest]) -> frozenset[str]:
    """The names of the policies that equal the shipped ones, which tests compile.

    Each fault of other policies is to be reported, so they are compiled as a whole.
    """
    own = _policies_of(policies)
    try:
        shipped = tested_policies()
        originals = own if directory.samefile(shipped) else _policies_of(read_path(shipped))
    except (FileNotFoundError, ManifestError):
        return frozenset()
    overrides = _policies_of(state).keys()
    return frozenset(name for name, item in own.items() if originals.get(name) == item) - overrides


def _policies_of(manifests: Iterable[Manifest]) -> dict[str, Document]:
    """The WeightPolicies among manifests, by name."""
    result = {}
    for item in manifests:
        if item.document.get("kind") == "WeightPolicy":
            # The provider reports an object without a name.
            with suppress(ValueError):
                key = key_of(item.document)
                if key.kind == POLICIES:
                    result[key.name] = item.document
    return result


def load_settings(path: Path | None) -> Settings:
    """Return the settings of a configuration file, or the defaults. Raises `UsageError`."""
    return Settings() if path is None else read_config(path, Config).settings
