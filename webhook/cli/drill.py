"""``weightlock drill``: try attacks on a live cluster by dry run, and report by control what stopped them."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from webhook.api.config import Cluster
from webhook.app.errors import IncompleteError, UsageError
from webhook.cli.cluster_options import add_cluster_arguments
from webhook.cli.format import table
from webhook.manifests.reader import ManifestError
from webhook.manifests.shipped import shipped_policies
from webhook.offline.drill import drill_cases
from webhook.offline.redteam import corpus_directory

if TYPE_CHECKING:
    import argparse

    from webhook.cluster.drill.run import Plan
    from webhook.core.drills.outcome import Drill


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "drill",
        help="try attacks on a live cluster by dry run",
        description="Try the attacks that matter on this cluster by server-side dry run, in a namespace and with a "
        "ModelWeights of the drill's own, and delete both. No attack is persisted. Exit code 0: every control stopped "
        "its attacks, 1: a control did not hold, 2: bad input, 3: the drill was not completed.",
    )
    add_cluster_arguments(parser)
    parser.add_argument(
        "--in-cluster", action="store_true", help="use the service account of this pod, as the CronJob does"
    )
    parser.add_argument(
        "--drill-namespace",
        default="",
        metavar="NAME",
        help="existing namespace for the drill (default: create one and delete it)",
    )
    parser.add_argument(
        "--model",
        default="",
        metavar="NAME",
        help="name of the drill's ModelWeights (default: a random name)",
    )
    parser.add_argument(
        "-n", "--namespace", default="weightlock-system", help="namespace of the Helm release (%(default)s)"
    )
    parser.add_argument(
        "--release",
        default="weightlock",
        metavar="NAME",
        help="Helm release whose webhook configurations are checked; empty: none (%(default)s)",
    )
    parser.add_argument(
        "--corpus", type=Path, metavar="DIR", help="directory of attacks (default: the shipped ones)"
    )
    parser.add_argument(
        "--limit", type=int, default=80, metavar="N", help="maximum number of attacks (%(default)d)"
    )
    parser.add_argument(
        "--seed",
        default="",
        metavar="TEXT",
        help="chooses among the attacks (default: the date, so drills rotate)",
    )
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="CODE",
        help="control that this cluster turned off on purpose (repeatable)",
    )
    parser.add_argument(
        "--timeout", type=float, default=300, metavar="SECONDS", help="maximum duration (%(default)g)"
    )
    parser.add_argument(
        "--record",
        default="",
        metavar="CONFIGMAP",
        help="store the result in this ConfigMap of the release's namespace, for the controller's log and metrics",
    )
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table", help="output format")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run a drill and print it. Raises `UsageError` and `IncompleteError`."""
    from webhook.cluster.client.api import ApiError, ClusterError  # noqa: PLC0415 - the client imports slowly
    from webhook.cluster.drill.run import Plan, SetupError  # noqa: PLC0415

    if not 0 < options.timeout <= 3600:
        raise UsageError("--timeout must be between 0 and 3600 seconds")
    if not 1 <= options.limit <= 1000:
        raise UsageError("--limit must be between 1 and 1000 attacks")
    try:
        cases = tuple(drill_cases(options.corpus or corpus_directory(), shipped_policies()))
    except (FileNotFoundError, ManifestError) as error:
        raise UsageError(str(error)) from None
    plan = Plan(
        cases=cases,
        namespace=options.drill_namespace,
        model=options.model,
        release=options.release,
        release_namespace=options.namespace,
        version=version("weightlock"),
        limit=options.limit,
        seed=options.seed or f"{datetime.now(UTC):%Y-%m-%d}",
        seconds=options.timeout,
        ignored=tuple(options.ignore),
    )
    try:
        drill = asyncio.run(_run(options, plan))
    except ClusterError as error:
        raise UsageError(str(error)) from None
    except (SetupError, ApiError) as error:
        raise IncompleteError(str(error)) from None
    except asyncio.CancelledError:
        raise IncompleteError("the drill was interrupted; what it created is deleted") from None
    if options.output == "json":
        print(orjson.dumps(drill.as_json(), option=orjson.OPT_INDENT_2).decode())
    else:
        print(rendered(drill))
    if drill.lost:
        return 1
    if not drill.complete:
        raise IncompleteError(drill.problems[0] if drill.problems else "no attack could be tried")
    return 0


async def _run(options: argparse.Namespace, plan: Plan) -> Drill:
    from webhook.cluster.client.api import KubeApi  # noqa: PLC0415 - as above
    from webhook.cluster.drill import record  # noqa: PLC0415
    from webhook.cluster.drill.run import run_with  # noqa: PLC0415

    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel if task is not None else sys.exit)
    cluster = Cluster(kubeconfig=options.kubeconfig, context=options.context)
    api = await KubeApi.connect(cluster, in_cluster=None if options.in_cluster else False)
    try:
        drill = await run_with(api, plan, secrets.token_hex(4))
        if options.record:
            await record.write(api, record.path_of(options.namespace, options.record), drill)
        return drill
    finally:
        await api.close()


def rendered(drill: Drill) -> str:
    """Render the controls, the attacks that passed, and a last line with counts."""
    rows = [
        (
            control.code,
            "holds" if control.holds else "LOST",
            f"{control.stopped}/{control.attacks}",
            control.detail,
        )
        for control in drill.controls
    ]
    parts = [table(("CONTROL", "RESULT", "STOPPED", "DETAIL"), rows)] if rows else []
    successes = [attempt for attempt in drill.attempts if attempt.state == "passed"]
    if successes:
        lines = [f"  {attempt.name}: missing {', '.join(attempt.missing)}" for attempt in successes]
        parts.append("Not stopped:\n" + "\n".join(lines))
    if drill.problems:
        parts.append("Not completed:\n" + "\n".join(f"  {problem}" for problem in drill.problems))
    attempts = [attempt for attempt in drill.attempts if attempt.state in ("stopped", "passed")]
    stopped = sum(attempt.state == "stopped" for attempt in attempts)
    parts.append(
        f"drill: {drill.result}, {stopped}/{len(attempts)} attacks stopped, "
        f"{sum(control.holds for control in drill.controls)}/{len(drill.controls)} controls hold"
    )
    return "\n\n".join(parts)
