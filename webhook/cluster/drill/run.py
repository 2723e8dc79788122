"""One drill: a namespace and a ModelWeights of its own, attacks by server-side dry run, and the cleanup of both.

It never persists an object that an attack creates, never reads an object that it did not create, and deletes exactly
what it created, by UID. The quota of its namespace lets no pod run there, even if an attack were not a dry run.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from webhook.api.base import API_VERSION
from webhook.api.codes import NO_GRANT
from webhook.cluster.client.api import ApiError
from webhook.cluster.doctor import installation
from webhook.cluster.doctor.installation_view import Installation, SkippedError
from webhook.cluster.drill.contents import contents
from webhook.core.drills.attacks import LABELS, chosen, model, own_attacks
from webhook.core.drills.outcome import Attempt, Drill, checked, outcome
from webhook.core.kube.time import format_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from webhook.cluster.client.api import KubeApi
    from webhook.core.drills.attacks import Attack, Case
    from webhook.core.kube.fields import Document

_MODELS = f"/apis/{API_VERSION}/modelweights"
_SETTLE_SECONDS = 30.0
_SETTLE_EVERY = 0.25
_CONCURRENT = 4
_CLEANUP_SECONDS = 30.0
_ATTACKER = "attacker"
_CHECKS = {"webhook configurations": installation.configurations, "guard": installation.guard}
_QUOTA = {
    "pods": "0",
    "persistentvolumeclaims": "0",
    "count/deployments.apps": "0",
    "count/replicasets.apps": "0",
    "count/statefulsets.apps": "0",
    "count/daemonsets.apps": "0",
    "count/jobs.batch": "0",
    "count/cronjobs.batch": "0",
    "count/replicationcontrollers": "0",
}


class SetupError(Exception):
    """The drill cannot be set up. The message is one line."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    ``namespace`` names an existing namespace for the drill; empty: the drill creates one and deletes it. ``model`` is
    the name of the drill's ModelWeights. ``release`` and ``release_namespace`` name the installation, to check its
    webhook configurations. ``seconds`` bounds the whole drill, ``request_seconds`` each request.
    """

    cases: Sequence[Case]
    namespace: str
    model: str
    release: str
    release_namespace: str
    version: str
    limit: int
    seed: str
    seconds: float
    request_seconds: float = 15.0
    ignored: tuple[str, ...] = ()


async def run_with(api: KubeApi, plan: Plan, unique: str) -> Drill:
    """Run a drill. ``unique`` becomes part of the names of what it creates.

    Raises:
        SetupError: the drill could not begin.
        ApiError: the API server cannot be reached.
    """
    return await _Run(api, plan, unique, api).run()


@dataclass(slots=True)
class _Run:
    api: KubeApi
    plan: Plan
    unique: str
    attacker: KubeApi
    attempts: list[Attempt] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    async def run(self) -> Drill:
        start = format_time(datetime.now(UTC))
        try:
            async with asyncio.timeout(self.plan.seconds):
                async with contextlib.AsyncExitStack() as stack:
                    namespace = self.plan.namespace or await stack.enter_async_context(self._namespace())
                    await stack.enter_async_context(self._model(namespace))
                    await self._settle(namespace)
                    await self._attack(namespace)
                await self._check()
        except TimeoutError:
            self.problems.append(f"the drill did not end within {self.plan.seconds:g} s")
        end = format_time(datetime.now(UTC))
        return Drill(start, end, tuple(self.attempts), self.plan.ignored, tuple(self.problems))

    @contextlib.asynccontextmanager
    async def _namespace(self) -> AsyncIterator[str]:
        """Create a namespace in which nothing can run, and delete it afterwards."""
        name = f"weightlock-drill-{self.unique}"
        labels = {**LABELS, "pod-security.kubernetes.io/enforce": "privileged"}
        created = await self._create(
            "/api/v1/namespaces",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
        )
        try:
            quota = {
                "apiVersion": "v1",
                "kind": "ResourceQuota",
                "metadata": {"name": "nothing-runs"},
                "spec": {"hard": _QUOTA},
            }
            await self._create(f"/api/v1/namespaces/{name}/resourcequotas", quota)
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
            # The API server rejects pods of a missing account, and the controller manager may create it later.
            with contextlib.suppress(SetupError):
                await self._create(f"/api/v1/namespaces/{name}/serviceaccounts", account)
            await self._let_attack(name)
            yield name
        finally:
            await self._delete(f"/api/v1/namespaces/{name}", created)

    async def _let_attack(self, namespace: str) -> None:
        """Create an identity that can create everything in the namespace, and has no exceptions of the caller.

        An admin is allowed to use any exception, so the admin's own attacks would prove nothing.
        """
        rbac = "rbac.authorization.k8s.io"
        base = f"/apis/{rbac}/v1/namespaces/{namespace}"
        head = {"apiVersion": f"{rbac}/v1", "metadata": {"name": _ATTACKER}}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": _ATTACKER}}
        await self._create(f"/api/v1/namespaces/{namespace}/serviceaccounts", account)
        rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["create"]}]
        await self._create(f"{base}/roles", {**head, "kind": "Role", "rules": rules})
        binding = {
            **head,
            "kind": "RoleBinding",
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": _ATTACKER},
            "subjects": [{"kind": "ServiceAccount", "name": _ATTACKER, "namespace": namespace}],
        }
        await self._create(f"{base}/rolebindings", binding)
        self.attacker = self.api.as_user(f"system:serviceaccount:{namespace}:{_ATTACKER}")

    @contextlib.asynccontextmanager
    async def _model(self, namespace: str) -> AsyncIterator[None]:
        """Create the drill's ModelWeights, or take over that of a drill that was killed, and delete it afterwards."""
        name = self.plan.model or f"weightlock-drill-{self.unique}"
        document = model(name, namespace)
        path = f"{_MODELS}/{quote(name, safe='')}"
        try:
            created = await self.api.request(
                "POST", _MODELS, body=document, seconds=self.plan.request_seconds
            )
        except ApiError as error:
            if error.status != 409:
                raise SetupError(f"cannot create ModelWeights {name}: {error}") from None
            created = await self.api.get(path, seconds=self.plan.request_seconds)
            labels = created["metadata"].get("labels") or {}
            if created.get("spec") != document["spec"] or LABELS.items() - labels.items():
                raise SetupError(f"ModelWeights {name} exists and is not a drill's own") from None
        try:
            yield
        finally:
            await self._delete(path, created)

    async def _settle(self, namespace: str) -> None:
        """Wait until the webhook knows the model. A webhook that never learns of it fails the attack itself."""
        canary = next(attack for attack in own_attacks(namespace) if attack.codes == (NO_GRANT,))
        until = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < until:
            attempt = await self._try(canary)
            if attempt.state in ("stopped", "other") or (attempt.state == "error" and not attempt.codes):
                return
            await asyncio.sleep(_SETTLE_EVERY)

    async def _attack(self, namespace: str) -> None:
        present = await contents(self.api)
        attacks = chosen(self.plan.cases, present, namespace, limit=self.plan.limit, seed=self.plan.seed)
        gate = asyncio.Semaphore(_CONCURRENT)

        async def attempt(attack: Attack) -> Attempt:
            async with gate:
                return await self._try(attack)

        self.attempts += await asyncio.gather(*map(attempt, attacks))
        errors = [item for item in self.attempts if item.state == "error"]
        if errors:
            more = f", and {len(errors) - 1} more attacks" if len(errors) > 1 else ""
            self.problems.append(f"no verdict: {errors[0].name}: {errors[0].detail}{more}")

    async def _try(self, attack: Attack) -> Attempt:
        """Send one attack as a dry run. Attacks outside the namespace need rights that only the caller has."""
        api = self.attacker if "/namespaces/" in attack.path else self.api
        try:
            await api.request(
                "POST",
                attack.path,
                # Without it, the API server would drop a field that it does not know, and the attack with it.
                {"dryRun": "All", "fieldValidation": "Strict"},
                attack.body,
                seconds=self.plan.request_seconds,
            )
        except ApiError as error:
            return outcome(attack, error.status, error.codes, str(error))
        return outcome(attack, 201, (), "")

    async def _check(self) -> None:
        """Check that the webhook configurations and their guard are as the chart installed them."""
        plan = self.plan
        if not plan.release:
            return
        view = await Installation.find_release(
            self.api, plan.release_namespace, plan.release, plan.version, plan.request_seconds
        )
        for name, check in _CHECKS.items():
            try:
                results = await check(view)
            except SkippedError:
                continue
            except ApiError as error:
                self.problems.append(f"cannot check the {name}: {error}")
                continue
            checks = (checked(name, result.result, result.what) for result in results)
            self.attempts += [attempt for attempt in checks if attempt is not None]

    async def _create(self, path: str, body: Document) -> Document:
        try:
            return await self.api.request("POST", path, body=body, seconds=self.plan.request_seconds)
        except ApiError as error:
            kind = body["kind"]
            raise SetupError(f"cannot create {kind} {body['metadata']['name']}: {error}") from None

    async def _delete(self, path: str, created: Document) -> None:
        """Delete exactly the object that was created, also if the drill was cancelled."""
        options: Document = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": created["metadata"]["uid"]},
        }
        await asyncio.shield(asyncio.ensure_future(self._deleted(path, options)))

    async def _deleted(self, path: str, options: dict[str, Any]) -> None:
        try:
            await self.api.request("DELETE", path, body=options, seconds=_CLEANUP_SECONDS)
        except ApiError as error:
            if error.status != 404:
                self.problems.append(f"cannot delete {path.rpartition('/')[2]}: {error}")
