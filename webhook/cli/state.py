"""Arguments that several commands share: the state directory, the policies, the settings file, and who asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from webhook.api.config import Config, Settings
from webhook.api.faults import describe
from webhook.cli.main import UsageError
from webhook.embedded.manifests import ManifestError, read_file
from webhook.embedded.shipped import shipped_policies
from webhook.embedded.source import DirectorySource

if TYPE_CHECKING:
    import argparse


def add_state_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """``--state``, ``--policies`` and ``--config``."""
    parser.add_argument(
        "--state", type=Path, metavar="DIR", required=required, help="manifests of what the cluster holds"
    )
    parser.add_argument(
        "--policies", type=Path, metavar="DIR", help="policies instead of those that ship with Weightlock"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration, for its settings")


def load_source(options: argparse.Namespace) -> DirectorySource:
    """The source those arguments describe. Raises `UsageError`."""
    policies = options.policies
    try:
        paths = [policies or shipped_policies(), *([options.state] if options.state else [])]
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such directory")
    try:
        return DirectorySource(paths, load_settings(options.config))
    except ManifestError as error:
        raise UsageError(str(error)) from None


def load_settings(path: Path | None) -> Settings:
    """The settings of a configuration file, or the defaults. Raises `UsageError`."""
    if path is None:
        return Settings()
    try:
        documents = [manifest.document for manifest in read_file(path)]
        return Config.model_validate(documents[0] if documents else {}).settings
    except ManifestError as error:
        raise UsageError(str(error)) from None
    except ValidationError as error:
        raise UsageError(f"{path}: {describe(error)}") from None
