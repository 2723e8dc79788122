"""What all measurements share: the API server, the programs, the load generator, and which engines there are here."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from harness.controlplane import ControlPlane, Options
from harness.programs import ROOT, control_plane_programs

from bench.peers import machine
from bench.peers.engines import AdmissionPolicy, Noop, Target, Weightlock
from bench.peers.gatekeeper import Gatekeeper
from bench.peers.kyverno import Kyverno
from bench.peers.load import Load
from bench.peers.pods import NAMESPACE, SIZES, UNASKED, good, review

ENGINES = (AdmissionPolicy, Noop, Weightlock, Kyverno, Gatekeeper)
PEERS = ("kyverno", "gatekeeper")


def say(text):
    """One line of progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


class Bench:
    """One control plane with a namespace for the pods that are tried; a context manager."""

    def __init__(self, only=(), weightlock_config=None):
        self.weightlock_config = weightlock_config or {}
        self.programs = json.loads(
            subprocess.run(
                [sys.executable, ROOT / "bench" / "peers" / "build.py", "--find"],
                capture_output=True,
                text=True,
                check=False,
            ).stdout
        )
        assert "program" in self.programs["load"], self.programs["load"]
        self.address = machine.address()
        options = Options(
            controllers=False,
            webhook_client_certificate=False,
            # The namespaces' service accounts are not made here, and no pod needs a token.
            apiserver_arguments=["--disable-admission-plugins=ServiceAccount", "--event-ttl=5m"],
        )
        self.cluster = ControlPlane(control_plane_programs(), options)
        self.environment = {
            **os.environ,
            "TMPDIR": str(self.cluster.directory),
            "HOME": str(self.cluster.directory),
        }
        self.missing = {
            name: self.programs[name]["reason"] for name in PEERS if "program" not in self.programs[name]
        }
        selection = [engine for engine in ENGINES if engine.name not in self.missing]
        self._chosen = [engine for engine in selection if not only or engine.name in {Weightlock.name, *only}]

    def __enter__(self):
        self.cluster.start()
        self.kubernetes = self.cluster.client().get("/version").ok()["gitVersion"]
        for name in (NAMESPACE, UNASKED):
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            self.cluster.client().post("/api/v1/namespaces", namespace).ok()
        self.load = Load(self.programs["load"]["program"], self.cluster.directory)
        self.cluster.kubeconfig()
        pair = next((self.cluster.directory / "pki" / "cluster").glob("user-*.crt"))
        queries, self.unasked = (
            f"{self.cluster.server}/api/v1/namespaces/{name}/pods?dryRun=All" for name in (NAMESPACE, UNASKED)
        )
        self.api = Target(
            queries,
            self.cluster.ca,
            pair,
            pair.with_suffix(".key"),
        )
        self.reviews = {name: self._review(size) for name, size in SIZES.items()}
        self.engines = {engine.name: engine(self) for engine in self._chosen}
        return self

    def __exit__(self, *_):
        self.cluster.stop()

    def _review(self, size):
        """A review whose object is as the API server sends it: with defaults, and with who set which field."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        return review(good(size), self.cluster.client().post(path, good(size), dryRun="All").ok())

    @property
    def commit(self):
        """The commit of this tree, with a plus where it was changed."""

        def git(*words):
            done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
            return done.stdout.strip()

        changed = git("status", "--porcelain", "--untracked-files=no", "--", "webhook")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "") or "unknown"

    def where(self):
        """The machine and the versions, for the report."""
        return {
            **machine.describe(),
            "kubernetes": self.kubernetes,
            "go": self._go(),
            "versions": {name: engine.version for name, engine in self.engines.items() if engine.version},
            "missing": self.missing,
            "webhookAddress": "loopback, HTTP/2" if self.address == "127.0.0.1" else "not loopback, HTTP/1.1",
            "day": time.strftime("%Y-%m-%d", time.gmtime()),
        }

    def _go(self):
        for line in Path(ROOT, "bench", "peers", "modules", "kyverno", "go.mod").read_text().splitlines():
            if line.startswith("go "):
                return line[3:]
        return ""
