"""``weightlock detections``: test and export the detection rules, and evaluate them on a log, without a cluster."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from webhook.app.errors import IncompleteError, UsageError
from webhook.cli.cluster_options import add_cluster_arguments
from webhook.manifests.detections import load_rules, rule_files
from webhook.manifests.reader import ManifestError
from webhook.manifests.shipped import shipped_detections
from webhook.offline.sigma import FORMATS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from webhook.core.detection.alert import Alert

_COMMENTS = {"elastic": "//", "loki": "#", "splunk": "```", "sqlite": "--"}


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "detections",
        help="test and export detection rules, or evaluate them on a log",
        description="Test and export the detection rules, or evaluate them on an audit log. Exit code 0: success or no "
        "alert, 1: a case failed or an alert was raised, 2: bad input, 3: pySigma is not installed.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    _add_test(verbs)
    _add_export(verbs)
    _add_run(verbs)
    _add_silence(verbs)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run one verb. Raises `UsageError` and `IncompleteError`."""
    try:
        code: int = options.detections(options)
    except ManifestError as error:
        raise UsageError(str(error)) from None
    return code


def _add_test(verbs: Any) -> None:
    parser = verbs.add_parser("test", help="run the cases in *.test.yaml files")
    _add_directory(parser)
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text", help="output format")
    parser.set_defaults(detections=_test)


def _add_export(verbs: Any) -> None:
    parser = verbs.add_parser(
        "export",
        help="compile the rules for a SIEM",
        description="Compile the rules with pySigma. The queries read the entries as CloudEvents JSON, as `weightlock "
        "audit export` sends them. Rules that a format cannot express are listed on stderr.",
    )
    _add_directory(parser)
    parser.add_argument("--format", choices=FORMATS, required=True, help="query language")
    parser.add_argument(
        "-o", "--output", choices=["text", "json"], default="text", help="output format (%(default)s)"
    )
    parser.set_defaults(detections=_export)


def _add_run(verbs: Any) -> None:
    parser = verbs.add_parser(
        "run",
        help="evaluate the rules on a log and print the alerts",
        description="Evaluate the rules on all entries of a log or a directory of logs. API server audit events "
        "are evaluated with them. Exit code 1 if an alert above the level informational was raised.",
    )
    parser.add_argument("log", metavar="LOG", help="a log, a directory of logs, or s3://BUCKET/PREFIX")
    parser.add_argument(
        "--audit-events",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="audit log of the API server, one JSON event a line (repeatable)",
    )
    parser.add_argument("--rules", type=Path, metavar="DIR", help="rules (default: the shipped rules)")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text", help="output format")
    parser.set_defaults(detections=_run)


def _add_silence(verbs: Any) -> None:
    parser = verbs.add_parser(
        "silence",
        help="silence the alerts of a rule for a while",
        description="Silence the alerts of a rule on a cluster. They stay in the audit log, with the reason, and are "
        "not sent to receivers.",
    )
    parser.add_argument("rule", metavar="RULE", help="name of the rule")
    parser.add_argument(
        "--for", dest="duration", required=True, metavar="DURATION", help="such as 4h, at most 7d"
    )
    parser.add_argument("--reason", required=True, metavar="TEXT", help="reason, at least 10 characters")
    parser.add_argument("--key", default="", help="only alerts with this deduplication key")
    parser.add_argument(
        "--namespace", default="weightlock-system", help="namespace of Weightlock (%(default)s)"
    )
    parser.add_argument(
        "--config-map",
        default="weightlock-detection-silences",
        metavar="NAME",
        help="ConfigMap with the silences (%(default)s)",
    )
    add_cluster_arguments(parser)
    parser.set_defaults(detections=_silence)


def _add_directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directory", nargs="?", type=Path, metavar="DIR", help="rules (default: the shipped rules)"
    )


def _directory(path: Path | None) -> Path:
    try:
        return path if path is not None else shipped_detections()
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None


def _test(options: argparse.Namespace) -> int:
    from webhook.offline.detectiontest import run_directory  # noqa: PLC0415 - for this verb only

    outcomes = list(run_directory(_directory(options.directory)))
    failed = [outcome for outcome in outcomes if outcome.problems]
    if options.output == "json":
        rows = [
            {
                "file": each.file,
                "case": each.case,
                "passed": not each.problems,
                "problems": list(each.problems),
            }
            for each in outcomes
        ]
        print(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
        return 1 if failed else 0
    for each in failed:
        print(f"FAILED {each.file}: {each.case}: {'; '.join(each.problems)}")
    files = len({each.file for each in outcomes})
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} cases of {files} files passed")
    return 1 if failed else 0


def _export(options: argparse.Namespace) -> int:
    from webhook.offline.sigma import MissingBackendError, compile_rules  # noqa: PLC0415 - for this verb only

    files = rule_files(_directory(options.directory))
    load_rules(files)
    try:
        queries = compile_rules(files, options.format)
    except MissingBackendError as error:
        raise IncompleteError(str(error)) from None
    if options.output == "json":
        print(orjson.dumps([each._asdict() for each in queries], option=orjson.OPT_INDENT_2).decode())
    else:
        comment = _COMMENTS[options.format]
        for each in queries:
            if each.query:
                note = ", without its baseline" if each.baseline else ""
                end = f" {comment}" if options.format == "splunk" else ""
                print(f"{comment} {each.name} ({each.level}){note}{end}\n{each.query}\n")
    for each in queries:
        if each.fault:
            print(f"{each.name} is not expressible: {each.fault}", file=sys.stderr)
    count = sum(bool(each.query) for each in queries)
    print(f"exported {count} of {len(queries)} rules for {options.format}", file=sys.stderr)
    return 0


def _run(options: argparse.Namespace) -> int:
    from webhook.audit.bucket import local  # noqa: PLC0415 - for this verb only
    from webhook.audit.detect import evaluate_logs  # noqa: PLC0415
    from webhook.audit.errors import AuditError  # noqa: PLC0415

    rules = load_rules(rule_files(_directory(options.rules)))
    try:
        with local(options.log) as logs:
            alerts = list(evaluate_logs(rules, logs, options.audit_events))
    except AuditError as error:
        raise UsageError(str(error)) from None
    if options.output == "json":
        print(orjson.dumps([each.data() for each in alerts], option=orjson.OPT_INDENT_2).decode())
    else:
        for line in _lines(alerts):
            print(line)
    return 1 if any(each.level != "informational" for each in alerts) else 0


def _silence(options: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415 - for this verb only

    from webhook.api.duration import Duration  # noqa: PLC0415
    from webhook.core.detection.silence import LONGEST, read_silences  # noqa: PLC0415
    from webhook.core.kube.time import format_time  # noqa: PLC0415

    try:
        length = Duration(options.duration).timedelta
    except ValueError as error:
        raise UsageError(f"--for: {error}") from None
    if not timedelta() < length <= LONGEST:
        raise UsageError(f"--for {options.duration}: a silence lasts at most {LONGEST.days} days")
    now = datetime.now(UTC)
    name = f"{now:%Y%m%d-%H%M%S}-{options.rule[:200]}"
    body = {
        "rule": options.rule,
        "key": options.key,
        "begins": format_time(now),
        "ends": format_time(now + length),
        "reason": options.reason,
    }
    text = orjson.dumps(body).decode()
    if read_silences({name: text})[1]:
        raise UsageError("--reason needs at least 10 characters")
    user = asyncio.run(_store_silence(options, name, body))
    print(f"alerts of {options.rule} are silenced until {body['ends']} by {user}")
    return 0


async def _store_silence(options: argparse.Namespace, name: str, body: dict[str, str]) -> str:
    from webhook.cluster.access_client import AccessClient  # noqa: PLC0415 - for this verb only
    from webhook.cluster.client.api import ApiError, ClusterError  # noqa: PLC0415
    from webhook.cluster.controller.detection import add_silence  # noqa: PLC0415

    try:
        async with AccessClient.connect(options.kubeconfig, options.context) as client:
            user = await client.username()
            text = orjson.dumps({**body, "user": user[:253]}).decode()
            await add_silence(client.api, options.namespace, options.config_map, name, text)
            return user
    except ClusterError as error:
        raise UsageError(str(error)) from None
    except ApiError as error:
        raise IncompleteError(f"cannot store the silence: {error}") from None


def _lines(alerts: list[Alert]) -> Iterator[str]:
    for alert in alerts:
        data = alert.data()
        yield f"{alert.level.upper()} {alert.rule}: {alert.title}"
        yield f"  group: {', '.join(f'{name}={value}' for name, value in data['group'].items())}"
        yield f"  baseline: {data['baseline']}"
        for event in data["events"]:
            yield f"  event: {event['time']} {event['type']} {event['origin']} entry {event['entry']}"
        yield f"  techniques: {', '.join(alert.techniques)}"
    count = sum(alert.level != "informational" for alert in alerts)
    yield f"{count} alerts, {len(alerts) - count} informational"
