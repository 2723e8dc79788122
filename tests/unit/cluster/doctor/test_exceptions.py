"""Running workloads that lack the exceptions of this version's policies."""

import pytest
import yaml

from webhook.cluster.client.api import ApiError
from webhook.cluster.doctor import exceptions as module
from webhook.cluster.doctor.installation_view import SkippedError
from webhook.core.admission.provider import NotReadyError
from webhook.core.reports.exceptions import Exceptions, Right

CONFIG = "/api/v1/namespaces/weightlock-system/configmaps/weightlock-config"


@pytest.fixture
def running(world, monkeypatch):
    world.objects[CONFIG] = {"data": {"webhook.yaml": yaml.safe_dump({"settings": {}})}}

    def running(*items, error=None):
        async def found(_api, _config):
            if error is not None:
                raise error
            return list(items)

        monkeypatch.setattr(module, "running_exceptions", found)

    return running


def item(name):
    return Exceptions(f"Pod a/{name}", "a", "agent", (Right("escapes", "hostPID", "hostPID"),), ())


async def test_a_workload_without_its_exception_is_reported(view, running):
    running(item("p"))
    (result,) = await module.exceptions(view)
    assert (result.result, result.what) == ("warn", "Pod a/p needs RBAC use on escapes/hostPID")
    assert "weightlock report --would-deny -A --policies" in result.fix


async def test_many_are_counted(view, running):
    running(*(item(str(number)) for number in range(25)))
    assert (await module.exceptions(view))[-1].what == "5 more workloads need exceptions"


async def test_none_is_fine(view, running):
    running()
    assert [result.result for result in await module.exceptions(view)] == ["ok"]


async def test_unreadable_objects_are_skipped(view, running):
    running(error=NotReadyError("no modelweights"))
    with pytest.raises(SkippedError, match="no modelweights"):
        await module.exceptions(view)


@pytest.mark.parametrize("path", ["/api/v1/pods", "/apis/storage.k8s.io/v1/storageclasses"])
async def test_a_missing_list_permission_is_reported_immediately(view, world, running, path):
    running(error=AssertionError("nothing is evaluated"))
    resource = path.rpartition("/")[2]
    world.refusals[path] = ApiError(
        403,
        "Forbidden",
        f'{resource} is forbidden: User "u" cannot list resource "{resource}" in API group ""',
    )
    with pytest.raises(SkippedError, match=f"not allowed to list {resource}"):
        await module.exceptions(view)
