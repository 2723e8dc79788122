#!/usr/bin/env python3
"""Draws the dashboard for the docs from what a real Prometheus scraped from a real Weightlock under varied traffic.

The panels, their places, queries, units and colors are those of the chart's dashboard; only the drawing is ours, since
there is no Grafana here. For developers: it needs the control plane and Prometheus (`make control-plane prometheus`).

    scripts/dashboard_picture.py [--minutes 8] [--data FILE] PICTURE     run, keep what was scraped, draw
    scripts/dashboard_picture.py --redraw --data FILE PICTURE            draw again from what was kept
"""

import argparse
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT)]

import paneldrawing  # noqa: E402 -- beside this file
from harness.keylab import KeyLab  # noqa: E402 -- the path to it is set just above
from harness.monitored import Monitored  # noqa: E402
from harness.waiting import eventually  # noqa: E402

from webhook.keys.agent.client import BrokerRefusedError  # noqa: E402

DASHBOARD = ROOT / "charts" / "weightlock" / "files" / "dashboards" / "weightlock.json"
SCRAPE_SECONDS = 5


def main() -> int:
    """Run and draw; 3 without a control plane or Prometheus."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--minutes", type=float, default=8)
    arguments.add_argument("--data", type=Path, help="where to keep what was scraped, or to find it")
    arguments.add_argument("--redraw", action="store_true", help="draw what --data holds")
    arguments.add_argument("picture", type=Path)
    options = arguments.parse_args()
    dashboard = json.loads(DASHBOARD.read_text())
    if options.redraw:
        data = json.loads(options.data.read_text())
    else:
        places = [found("controlplane.py"), found("debpackages.py", "prometheus")]
        if None in places:
            return 3
        data = scraped(dashboard, *places, options.minutes)
        if options.data:
            options.data.write_text(json.dumps(data))
    paneldrawing.draw(dashboard, data, options.picture)
    print(f"{options.picture}: {options.picture.stat().st_size // 1024} KiB")
    return 0


def found(script: str, *arguments: str) -> Path | None:
    """What a script says is in the cache, None where it is not."""
    command = [sys.executable, str(ROOT / "tests" / "tools" / script), "--find", *arguments]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return Path(answer.stdout.strip()) if answer.returncode == 0 else None


def scraped(dashboard: dict[str, Any], control_plane: Path, debian: Path, minutes: float) -> dict[str, Any]:
    """Run everything for some minutes, and read what each panel would."""
    world = Monitored(control_plane, debian / "usr" / "bin", replicas=2, seconds=SCRAPE_SECONDS).start()
    try:
        begin = time.time()
        for step in traffic(world, begin, minutes * 60):
            print(f"[{time.time() - begin:4.0f} s] {step}", flush=True)
        print("firing:", *sorted({alert["labels"]["alertname"] for alert in world.prometheus.alerts()}))
        return read(world, dashboard, begin + 4 * SCRAPE_SECONDS)
    finally:
        world.stop()


def read(world: Monitored, dashboard: dict[str, Any], begin: float) -> dict[str, Any]:
    """The answer to every query of the dashboard, by panel and letter, from a moment until now."""
    end = time.time()
    panels: dict[str, Any] = {}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            query = world.prometheus.as_grafana(target["expr"], SCRAPE_SECONDS, end - begin)
            answer = (
                world.prometheus.query(query)
                if target["instant"]
                else world.prometheus.query_range(query, begin, end, SCRAPE_SECONDS)
            )
            panels.setdefault(str(panel["id"]), {})[target["refId"]] = answer
    return {"begin": begin, "end": end, "panels": panels}


def traffic(world: Monitored, begin: float, seconds: float) -> Iterator[str]:
    """A day in some minutes: a tide of pods, people without grants, keys, a grant that is revoked, and two mishaps."""
    chance = random.Random(7)  # noqa: S311 - for variety, not for secrets
    labs: list[KeyLab] = [world.lab()]
    yield "a first model"
    tokens: list[tuple[KeyLab, str]] = []
    events = iter(
        (
            (0.25, "a second model", lambda: labs.append(world.lab())),
            (0.40, "somebody tries every door", lambda: burst(world, 12)),
            (0.55, "a worker is killed", world.kill_a_worker),
            (0.70, "a grant is revoked", lambda: revoke(labs[0])),
            (0.85, "a webhook configuration is removed", lambda: tampered(world)),
        )
    )
    due, what, act = next(events)
    number = 0
    while (passed := (time.time() - begin) / seconds) < 1:
        if passed >= due:
            act()
            yield what
            due, what, act = next(events, (2.0, "", lambda: None))
        number += 1
        tide = 1 + math.sin(passed * 4 * math.pi)
        world.try_plain_pods(1 + round(2 * tide + chance.random() * 2))
        if chance.random() < 0.35 + 0.2 * tide:
            burst(world, 1)
        if number % 4 == 0:
            keys(labs[-1], f"train-{number}", tokens, chance)
        time.sleep(0.5 + chance.random() * 0.5)


def burst(world: Monitored, times: int) -> None:
    """Most samples are denied, each for another reason."""
    for _ in range(times):
        world.try_samples()


def keys(lab: KeyLab, name: str, tokens: list[tuple[KeyLab, str]], chance: random.Random) -> None:
    """A new pod gets its key, older ones renew theirs, and now and then something is refused."""
    token = lab.token(lab.running_pod(name))
    lab.client(token).release(lab.model)
    tokens.append((lab, token))
    for owner, known in chance.sample(tokens, min(len(tokens), 8)):
        attempt(owner, known, "renew")
    if chance.random() < 0.3:
        attempt(lab, "not.a.token", "release")
    if chance.random() < 0.2:
        # Once more is a restart of the sidecar; twice more is somebody else.
        attempt(lab, token, "release")
        attempt(lab, token, "release")


def attempt(lab: KeyLab, token: str, what: str) -> None:
    """Ask for a key; a refusal is what the dashboard shall show."""
    client = lab.client(token)
    try:
        getattr(client, what)(lab.model)
    except BrokerRefusedError:
        return


def revoke(lab: KeyLab) -> None:
    """The pods of a model lose their grant; their sidecars go on asking."""
    (request,) = [
        item
        for item in lab.cluster.client().get("/apis/weightlock.dev/v1alpha1/accessrequests").ok()["items"]
        if item["spec"]["model"] == lab.model
    ]
    lab.vote(request, "dave", "Revoke").ok()


def tampered(world: Monitored) -> None:
    """Gone, and put back by the controller."""
    world.tamper()
    eventually(world.weightlock.webhooks_present, "put back", seconds=30)


if __name__ == "__main__":
    sys.exit(main())
