"""Arguments that several commands share: the state directory, the policies, the settings file, and who asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from webhook.api.config import Config, Settings
from webhook.app.configuration import read_config
from webhook.app.errors import UsageError
from webhook.manifests.reader import ManifestError
from webhook.manifests.shipped import shipped_policies
from webhook.offline.provider import DirectoryProvider

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


def load_source(options: argparse.Namespace) -> DirectoryProvider:
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
        return DirectoryProvider(paths, load_settings(options.config))
    except ManifestError as error:
        raise UsageError(str(error)) from None


def load_settings(path: Path | None) -> Settings:
    """The settings of a configuration file, or the defaults. Raises `UsageError`."""
    return Settings() if path is None else read_config(path, Config).settings
