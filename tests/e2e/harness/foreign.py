"""Clusters that are not our own processes: one that exists already, and one that kind makes.

The admin's kubeconfig is used, and other users are impersonated, which admission sees as those users. Such a
cluster cannot be stopped, paused or restarted by a test.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from harness.cluster import Cluster, run
from harness.process import remove_directory
from harness.programs import NoControlPlaneError, programs_on_path, tools

KIND_CONFIG = Path(__file__).resolve().parents[1] / "kind" / "config.yaml"
KIND_SECONDS = 600.0


class ExistingCluster(Cluster):
    """The cluster that a kubeconfig's current context names."""

    controller_signs = True

    def __init__(self, kubeconfig: Path) -> None:
        directory = Path(tempfile.mkdtemp(prefix="weightlock-e2e-"))
        super().__init__(directory, tools())
        view = ["config", "view", "--flatten", "--minify", "--raw"]
        text = run([self.programs["kubectl"], "--kubeconfig", kubeconfig, *view]).ok().stdout
        self._admin: dict[str, Any] = yaml.safe_load(text)

    def tool_environment(self) -> dict[str, str]:
        """The caller's own environment, since an existing cluster may need plugins to sign in."""
        return dict(os.environ)

    def kubeconfig(self, user: str | None = None, groups: Sequence[str] = ()) -> Path:
        """The path of a kubeconfig of the admin, who impersonates `user` in `groups` where one is given."""
        digest = hashlib.sha256(json.dumps([user, list(groups)]).encode()).hexdigest()[:16]
        path = self.directory / f"{digest}.kubeconfig"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(yaml.safe_dump(self._admin if user is None else self._as(user, groups)))
        return path

    def _as(self, user: str, groups: Sequence[str]) -> Mapping[str, Any]:
        admin = self._admin["users"][0]
        impersonation = {"as": user, "as-groups": [*groups, "system:authenticated"]}
        return {**self._admin, "users": [{**admin, "user": {**admin["user"], **impersonation}}]}

    def stop(self) -> None:
        """Forget the kubeconfigs; the cluster goes on."""
        super().stop()
        remove_directory(self.directory)


class KindCluster(ExistingCluster):
    """A cluster that kind makes in containers, with the image under test loaded into its nodes."""

    def __init__(self, name: str, image: str | None) -> None:
        self.name = name
        kind = programs_on_path().get("kind")
        if kind is None:
            raise NoControlPlaneError("kind is not installed")
        with tempfile.NamedTemporaryFile(suffix=".kubeconfig") as kubeconfig:
            create = ["create", "cluster", "--name", name, "--config", str(KIND_CONFIG), "--wait", "180s"]
            run([kind, *create, "--kubeconfig", kubeconfig.name], seconds=KIND_SECONDS).ok()
            try:
                if image:
                    run([kind, "load", "docker-image", image, "--name", name], seconds=KIND_SECONDS).ok()
                super().__init__(Path(kubeconfig.name))
            except BaseException:
                self._delete()
                raise

    def stop(self) -> None:
        """Delete the cluster."""
        super().stop()
        self._delete()

    def _delete(self) -> None:
        run([programs_on_path()["kind"], "delete", "cluster", "--name", self.name], seconds=KIND_SECONDS)
