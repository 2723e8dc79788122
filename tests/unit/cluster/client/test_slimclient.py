"""The client without its models, each time in a process of its own, since what was imported stays."""

import subprocess
import sys

import pytest


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_client_of_the_cluster_comes_without_the_models() -> None:
    output = run(
        "import sys, webhook.cluster.client.api\n"
        "from kubernetes_asyncio.client import ApiClient, Configuration\n"
        "from kubernetes_asyncio.config import load_kube_config\n"
        "print(sum(name.startswith('kubernetes_asyncio.client.models.') for name in sys.modules))"
    )
    assert output == "0"


@pytest.mark.parametrize(
    "asked",
    [
        "from kubernetes_asyncio.client import CoreV1Api",
        "import kubernetes_asyncio\nkubernetes_asyncio.watch.Watch",
        "import kubernetes_asyncio\nkubernetes_asyncio.client.V1Pod",
        "from kubernetes_asyncio.client.models import V1Pod",
    ],
)
def test_a_request_for_more_loads_the_whole_package(asked: str) -> None:
    output = run(
        "import webhook.cluster\n"
        "from kubernetes_asyncio.client import ApiClient as slim\n"
        f"{asked}\n"
        "import kubernetes_asyncio.client as client\n"
        "from kubernetes_asyncio import watch\n"
        "print(client.ApiClient is slim, client.V1Pod(metadata=client.V1ObjectMeta(name='a')).metadata.name)"
    )
    assert output == "True a"


def test_a_package_in_use_is_left_alone() -> None:
    output = run(
        "import kubernetes_asyncio.client as before\n"
        "import webhook.cluster\n"
        "import kubernetes_asyncio.client as after\n"
        "print(before is after, after.V1Pod.__name__)"
    )
    assert output == "True V1Pod"


def test_an_unknown_attribute_is_an_error() -> None:
    output = run(
        "import webhook.cluster, kubernetes_asyncio.client as client\n"
        "print(hasattr(client, 'NoSuchThing'), hasattr(client, '__no_such_thing__'))"
    )
    assert output == "False False"
