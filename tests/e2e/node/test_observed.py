"""A real Prometheus scrapes the real pods of Weightlock."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import manifests
from harness.node.outside import Node
from harness.programs import ROOT
from harness.waiting import eventually

TOOL = ROOT / "tests" / "tools" / "debpackages.py"
PORT = 19090
FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


@pytest.fixture(scope="module")
def program() -> Path:
    """Prometheus as Debian packages it."""
    matches = subprocess.run(
        [sys.executable, TOOL, "--find", "prometheus"], capture_output=True, text=True, check=False
    )
    if matches.returncode == 3:
        pytest.skip(matches.stderr.strip())
    return Path(matches.stdout.strip(), "usr/bin/prometheus")


def test_prometheus_scrapes_every_pod(node: Node, program: Path) -> None:
    """Both replicas of each of the three parts are up, and answer as Weightlock."""
    pods = node.client().get(f"/api/v1/namespaces/{manifests.NAMESPACE}/pods").ok()["items"]
    targets = [
        {
            "targets": [f"{pod['status']['podIP']}:8080"],
            "labels": {"component": pod["metadata"]["labels"]["app.kubernetes.io/component"]},
        }
        for pod in pods
        if pod["status"]["phase"] == "Running"
    ]
    job = {"job_name": "weightlock", "static_configs": targets}
    config = node.directory / "prometheus.yaml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "2s"}, "scrape_configs": [job]}))
    data = f"--storage.tsdb.path={node.directory}/prometheus"
    listen = f"--web.listen-address=127.0.0.1:{PORT}"
    node.control("spawn", "prometheus", [str(program), f"--config.file={config}", data, listen])

    def query(expression: str) -> dict[str, float]:
        url = f"http://127.0.0.1:{PORT}/api/v1/query?query={expression}"
        answer: dict[str, Any] = json.loads(node.run(sys.executable, "-c", FETCH, url).ok().stdout)
        return {entry["metric"]["component"]: float(entry["value"][1]) for entry in answer["data"]["result"]}

    everything = {"webhook": 2.0, "controller": 2.0, "broker": 2.0}
    eventually(
        lambda: query("sum(up)by(component)") == everything, "every pod is scraped", seconds=60, every=1.0
    )
    assert query("count(weightlock_build_info)by(component)") == everything
