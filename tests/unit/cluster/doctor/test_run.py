"""The run through all checks: whatever one meets, the others go on."""

import asyncio

import pytest

from webhook.api.config import Cluster
from webhook.cluster.client.api import ApiError, ClusterError
from webhook.cluster.doctor import run
from webhook.cluster.doctor.installation_view import SkippedError


def raising(error):
    async def check(view):
        raise error

    return check


async def too_long(view):
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("check", "result", "words"),
    [
        (raising(SkippedError("not allowed to list nodes")), "skipped", "not allowed to list nodes"),
        (raising(ApiError(500, "", "etcd is away")), "fail", "cannot run the check: etcd is away"),
        (raising(KeyError("webhooks")), "fail", "cannot read an object in the cluster (KeyError)"),
        (too_long, "fail", "the check timed out"),
    ],
)
async def test_a_check_that_goes_wrong_is_a_line_like_others(view, check, result, words):
    view.seconds = 0.01
    (line,) = await run._run_check(check, view)
    assert (line.result, line.what) == (result, words)


async def test_a_cluster_that_cannot_be_reached_is_not_examined(tmp_path):
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: c, user: u}}], "
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: u, user: {token: t}}]}"
    )
    with pytest.raises(ClusterError, match=r"http://127\.0\.0\.1:1: the API server cannot be reached"):
        await run.examine(Cluster(kubeconfig=str(kubeconfig)), "weightlock-system", "weightlock", "1", 2.0)
