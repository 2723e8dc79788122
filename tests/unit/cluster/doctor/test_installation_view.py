"""How the doctor knows a release by its name, and by the names of its objects."""

import pytest

from webhook.cluster.client.api import ApiError
from webhook.cluster.doctor.installation_view import Installation

DEPLOYMENTS = "/apis/apps/v1/namespaces/weightlock-system/deployments"
LONG = "weightlock-of-the-research-cluster-in-the-north"
SHORT = "weightlock-of-the-research-cluster-in-th"


def installed(world, full, release, part="webhook"):
    labels = {"app.kubernetes.io/component": part, "app.kubernetes.io/instance": release}
    metadata = {"name": f"{full}-{part}", "labels": labels}
    world.lists.setdefault(DEPLOYMENTS, []).append({"metadata": metadata})


async def known(world, name):
    view = await Installation.find_release(world, "weightlock-system", name, "1.0.0", 5.0)
    return view.name, view.release


@pytest.mark.parametrize("name", ["guarding", "research"])
async def test_either_name_of_a_release_with_another_full_name(world, name):
    installed(world, "guarding", "research")
    installed(world, "other", "others")
    assert await known(world, name) == ("guarding", "research")


async def test_a_name_that_the_chart_had_to_cut(world):
    installed(world, SHORT, LONG)
    assert await known(world, LONG) == (SHORT, LONG)
    assert await known(world, SHORT) == (SHORT, LONG)


async def test_unset_names_are_those_of_the_chart(world):
    assert await known(world, LONG) == (SHORT, LONG)
    world.refusals[DEPLOYMENTS] = ApiError(403, "Forbidden", 'cannot list resource "deployments"')
    assert await known(world, "weightlock") == ("weightlock", "weightlock")


async def test_pods_and_commands_go_by_the_release(world, monkeypatch):
    installed(world, "guarding", "research")
    view = await Installation.find_release(world, "weightlock-system", "guarding", "1.0.0", 5.0)
    assert view.upgrade.startswith("helm upgrade research ")
    queries = []

    async def items(self, path, **query):
        queries.append(query["labelSelector"])
        return [{"metadata": {"name": "p"}, "spec": {"containers": []}}]

    monkeypatch.setattr(Installation, "items", items)
    with pytest.raises(Exception, match="no running pods"):
        await view.metrics("webhook")
    assert queries == ["app.kubernetes.io/instance=research,app.kubernetes.io/component=webhook"]
