"""What a kubelet does for the volumes of a pod that runs here as a process: Secrets as files, a while late.

Files change as a kubelet changes them: all at once, by a symbolic link that is replaced (k8s.io/kubernetes
pkg/volume/util/atomic_writer.go).
"""

import base64
import threading
from collections.abc import Mapping
from pathlib import Path

from harness.cluster import Cluster
from harness.rest import Client


class Kubelet:
    """Keeps directories as the Secrets of one namespace are; ``volumes`` are directories by Secret.

    A change is seen ``lag`` seconds late. Use `with`; `sync` looks once.
    """

    def __init__(self, cluster: Cluster, namespace: str, volumes: Mapping[str, Path], lag: float) -> None:
        # The cluster's own client is for one thread.
        self._client, self._namespace = Client.from_kubeconfig(cluster.kubeconfig()), namespace
        self._volumes, self._lag = dict(volumes), lag
        self._shown: dict[str, dict[str, bytes]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.changes = 0

    def __enter__(self) -> "Kubelet":
        self.sync()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)
        self._client.close()

    def sync(self) -> None:
        """Show every Secret as it is now."""
        for secret, directory in self._volumes.items():
            answer = self._client.get(f"/api/v1/namespaces/{self._namespace}/secrets/{secret}")
            files = {key: base64.b64decode(text) for key, text in (answer.body.get("data") or {}).items()}
            if answer.status == 200 and files != self._shown.get(secret):
                self._shown[secret] = files
                self._show(directory, files)

    def _run(self) -> None:
        while not self._stop.wait(self._lag):
            try:
                self.sync()
            except OSError:
                # The API server is away; a kubelet would try again, too.
                continue

    def _show(self, directory: Path, files: Mapping[str, bytes]) -> None:
        self.changes += 1
        directory.mkdir(parents=True, exist_ok=True)
        content = directory / f"..{self.changes}"
        content.mkdir()
        for name, data in files.items():
            (content / name).write_bytes(data)
            link = directory / name
            if not link.is_symlink():
                link.symlink_to(Path("..data") / name)
        new = directory / "..data_tmp"
        new.symlink_to(content.name)
        new.replace(directory / "..data")
