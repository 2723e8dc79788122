"""Check that the operators that run in the cluster are listed in the settings, and that detected kinds have rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from webhook.api.config import Settings
from webhook.api.operators import PRESETS
from webhook.cluster.doctor.installation_view import CheckResult, Installation, SkippedError
from webhook.core.admission.controllers import controllers_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from webhook.core.kube.fields import Document

# Account names that several projects use: only the preset's own namespace identifies these.
_COMMON = frozenset({"argo", "controller", "training-operator"})


async def operators(view: Installation) -> Sequence[CheckResult]:
    """Running operators with a preset are in ``settings.operators`` or ``settings.controllers``."""
    settings = await settings_of(view)
    running = sorted(set(_running(await view.items("/apis/apps/v1/deployments"))))
    if not running:
        raise SkippedError("no known operator is running")
    controllers = controllers_of(settings)
    unlisted = [
        (name, namespace, account)
        for name, namespace, account in running
        if f"system:serviceaccount:{namespace}:{account}" not in controllers
    ]
    results = [_unlisted(view, *entry) for entry in unlisted]
    return results or [CheckResult("ok", f"{len(running)} running operators are listed")]


async def settings_of(view: Installation) -> Settings:
    """The settings of the webhook. Raises `SkippedError` if they are unreadable."""
    documents = await view.mounted("config", "webhook.yaml")
    if not documents:
        # Reports the missing permission, if that is the reason.
        await view.own("configmaps", f"{view.name}-config")
        raise SkippedError("the configuration of the webhook is not readable")
    try:
        return Settings.model_validate(documents[0].get("settings") or {})
    except ValidationError:
        raise SkippedError("the configuration of the webhook is of another version") from None


def _running(deployments: Sequence[Document]) -> Iterator[tuple[str, str, str]]:
    """Preset, namespace and account of each Deployment with replicas that runs under the account of a preset."""
    for deployment in deployments:
        spec = deployment.get("spec") or {}
        if spec.get("replicas") == 0:
            continue
        pod = (spec.get("template") or {}).get("spec") or {}
        account = pod.get("serviceAccountName") or pod.get("serviceAccount") or "default"
        namespace = (deployment.get("metadata") or {}).get("namespace", "")
        name = _preset_of(namespace, account)
        if name:
            yield name, namespace, account


def _preset_of(namespace: str, account: str) -> str:
    """The preset whose account this is; empty where there is none.

    A chart puts the name of its release before the account if the release has another name than the chart.
    """
    for name, preset in PRESETS.items():
        if account in preset.accounts and (namespace == preset.namespace or account not in _COMMON):
            return name
    for name, preset in PRESETS.items():
        if any(account.endswith(f"-{suffix}") for suffix in preset.accounts if suffix not in _COMMON):
            return name
    return ""


def _unlisted(view: Installation, name: str, namespace: str, account: str) -> CheckResult:
    preset = PRESETS[name]
    fields = [] if namespace == preset.namespace else [f"namespace: {namespace}"]
    fields += [] if account in preset.accounts else [f"accounts: [{account}]"]
    entry = f"{{{', '.join([f'name: {name}', *fields])}}}" if fields else name
    what = (
        f"operator {namespace}/{account} is not listed: pods that it writes for "
        f"{', '.join(kind.partition('.')[0] for kind in preset.owns[:3])} are decided by its own access"
    )
    return CheckResult("warn", what, f"add {entry} to the chart value operators, then: {view.upgrade}")
