"""A real Prometheus as a local process, and its HTTP API.

Targets bear the labels that a ServiceMonitor gives them; queries come from the dashboard and the alerts as they are.
"""

import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.process import Component, free_port
from harness.waiting import eventually

START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """What is scraped: HOST:PORT, its labels, and its tls_config where it speaks TLS."""

    address: str
    labels: Mapping[str, str]
    tls: Mapping[str, Any] | None = None


class Prometheus:
    """One Prometheus; `start` it, ask it. It scrapes every `seconds` and looks at the rules as often."""

    def __init__(self, component: Component, programs: Path, directory: Path, *, seconds: int = 2) -> None:
        self._component = component
        self._program = programs / "prometheus"
        self._directory = directory
        self._port = free_port()
        self.seconds = seconds
        self.begun = 0.0

    def start(self, targets: Sequence[Target], rules: Path) -> None:
        """Start it and wait until it is ready and every target was scraped."""
        every = f"{self.seconds}s"
        config = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [str(rules)],
            "scrape_configs": [
                {
                    "job_name": f"target-{number}",
                    "scheme": "http" if target.tls is None else "https",
                    **({} if target.tls is None else {"tls_config": dict(target.tls)}),
                    "static_configs": [{"targets": [target.address], "labels": dict(target.labels)}],
                }
                for number, target in enumerate(targets)
            ],
        }
        file = self._directory / "prometheus.yaml"
        file.write_text(yaml.safe_dump(config))
        self._component.start(
            [
                self._program,
                f"--config.file={file}",
                f"--storage.tsdb.path={self._directory / 'prometheus'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
                "--log.level=warn",
            ]
        )
        self._component.wait_ready(lambda: self._get("/-/ready"), START_SECONDS)
        self.begun = time.time()
        eventually(
            lambda: [target["health"] for target in self.targets()] == ["up"] * len(targets),
            "every target is scraped",
            seconds=START_SECONDS,
            every=0.5,
        )

    def targets(self) -> list[dict[str, Any]]:
        """The targets as Prometheus sees them, with the error of the last scrape."""
        matches: list[dict[str, Any]] = self._api("targets")["activeTargets"]
        return matches

    def rules(self) -> list[dict[str, Any]]:
        """Every rule, with its state, health and last error."""
        return [rule for group in self._api("rules")["groups"] for rule in group["rules"]]

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are pending or firing now, with their labels and annotations."""
        matches: list[dict[str, Any]] = self._api("alerts")["alerts"]
        return matches

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression gives now. Raises AssertionError with Prometheus' words where it is none."""
        matches: list[dict[str, Any]] = self._api("query", query=expression)["result"]
        return matches

    def query_range(self, expression: str, begin: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series that an expression gives between two moments in Unix time, every so many seconds.

        The last point is ``end`` itself, so that what was scraped a moment ago is in the answer.
        """
        first = end - (end - begin) // step * step
        matches: list[dict[str, Any]] = self._api(
            "query_range", query=expression, start=first, end=end, step=step
        )["result"]
        return matches

    def as_grafana(self, expression: str, step: float, seconds: float) -> str:
        """A query of a dashboard with its variables filled in, All being chosen, for a graph of so many seconds."""
        # As Grafana has it: no shorter than four scrapes, or some intervals would hold one sample only.
        interval = max(step + self.seconds, 4 * self.seconds)
        values = {
            "cluster": ".*",
            "namespace": ".*",
            "__rate_interval": f"{interval:.0f}s",
            "__range": f"{seconds:.0f}s",
        }
        filled = re.sub(r"\$(\w+)", lambda matches: values[matches[1]], expression)
        assert "$" not in filled, filled
        return filled

    def _api(self, path: str, **parameters: Any) -> Any:
        query = urllib.parse.urlencode(parameters)
        answer = json.loads(self._get(f"/api/v1/{path}?{query}"))
        assert answer["status"] == "success", f"{parameters}: {answer.get('error')}"
        assert not answer.get("warnings"), answer
        return answer["data"]

    def _get(self, path: str) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}{path}")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                matches: bytes = response.read()
        except urllib.error.HTTPError as error:
            if error.headers.get_content_type() != "application/json":
                raise
            matches = error.read()
        return matches
