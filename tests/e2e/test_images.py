"""Signed images on a real API server: registry, statements of the controller, admission, and the causes of denials."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from harness.controller import Controllers
from harness.controlplane import ControlPlane
from harness.lab import API, RESTRICTED
from harness.registry import Registry, running_registry
from harness.waiting import eventually
from harness.weightlock import POLICIES, Weightlock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.signed_images import INDEX, SIGN, SLSA, Store  # noqa: E402
from tests.support.sigstore_world import World, new_key, pem  # noqa: E402
from webhook.api.images import ImageVerificationSpec  # noqa: E402
from webhook.core.images.statements import Statement, lines, object_name, shard_of  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.installed import Installed

REPOSITORY = "acme/trainer"
WAIT = 180.0
WORLD, KEY, OTHER, THIRD = World(logged=False), new_key(), new_key(), new_key()


class Images:
    """A registry with images, and Weightlock and its controller, which deny images that are not verified."""

    def __init__(self, weightlock: Weightlock, registry: Registry, absent: str) -> None:
        self.weightlock, self.registry, self.gone = weightlock, registry, absent
        self.cluster = weightlock.control_plane
        self.numbers = 0
        self.tags: dict[str, str] = {}

    def image(self, *, key: Any = KEY, repository: str = REPOSITORY) -> str:
        """Push an image and return its reference by digest. ``key`` signs it, and None leaves it unsigned."""
        self.numbers += 1
        store = Store()
        digest = store.image(f"v{self.numbers}", f"{repository} {self.numbers}")
        if key is not None:
            store.sign(WORLD, digest, "bundle", SIGN, key=key)
            store.sign(WORLD, digest, "bundle", SLSA, key=key)
            index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": store.referrers(digest)}
            store.put(json.dumps(index).encode(), digest.replace(":", "-"), INDEX)
        self.registry.push_store(repository, store)
        reference = f"{self.registry.address}/{repository}@{digest}"
        self.tags[reference] = f"{self.registry.address}/{repository}:v{self.numbers}"
        return reference

    def trust(self, name: str, repository: str, *keys: Any) -> None:
        """Create or replace a trust rule."""
        self.cluster.apply(
            {
                "apiVersion": "weightlock.dev/v1alpha1",
                "kind": "ImageTrust",
                "metadata": {"name": name},
                "spec": {
                    "images": [f"{self.registry.address}/{repository}", f"{self.gone}/{repository}"],
                    "signers": [{"key": pem(key).decode()} for key in keys],
                },
            }
        )

    def pod(self, namespace: str, *images: str, name: str = "", **spec: Any) -> dict[str, Any]:
        """Return a harmless pod with these images."""
        self.numbers += 1
        containers = [
            {"name": f"c{number}", "image": image, "securityContext": RESTRICTED}
            for number, image in enumerate(images)
        ]
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name or f"p{self.numbers}", "namespace": namespace},
            "spec": {"containers": containers, **spec},
        }

    def create(self, pod: dict[str, Any], **query: str) -> Any:
        """Create a pod: the answer of the API server."""
        namespace = pod["metadata"]["namespace"]
        return self.cluster.client().post(f"/api/v1/namespaces/{namespace}/pods", pod, **query)

    def verdict(self, namespace: str, *images: str, **spec: Any) -> str:
        """Return the code of a denial, or "admitted", for a pod that is only tried."""
        return code_of(self.create(self.pod(namespace, *images, **spec), dryRun="All"))

    def statements(self) -> dict[str, dict[str, Any]]:
        """Return the ImageVerification objects by name."""
        listing = self.cluster.client().get(f"{API}/imageverifications").ok()["items"]
        return {item["metadata"]["name"]: item for item in listing}

    def stated(self, reference: str) -> list[dict[str, Any]]:
        """Return the objects with a statement about the digest of a reference."""
        digest = reference.partition("@")[2]
        return [item for item in self.statements().values() if digest in item["spec"]["statements"]]


def code_of(answer: Any) -> str:
    """Return the code in a denial, or "admitted"."""
    if answer.status == 201:
        return "admitted"
    assert answer.status == 403, answer.message
    text = str(answer.message)
    return text[text.index("[WL") + 1 : text.index("]", text.index("[WL"))]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="module")
def deny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped policies with signed-images at Deny."""
    directory = tmp_path_factory.mktemp("policies") / "policies"
    shutil.copytree(POLICIES, directory)
    file = directory / "signed-images.yaml"
    document = yaml.safe_load(file.read_text())
    document["spec"]["validationActions"] = ["Deny"]
    file.write_text(yaml.safe_dump(document))
    return directory


@pytest.fixture(scope="module")
def images(installed_weightlock: Installed, registry: Registry, deny: Path) -> Iterator[Images]:
    """Weightlock with a configured registry and a controller, for the whole file."""
    if not isinstance(installed_weightlock, Weightlock) or not isinstance(
        installed_weightlock.cluster, ControlPlane
    ):
        pytest.skip("Weightlock is not a process of ours here")
    weightlock = installed_weightlock
    before = dict(weightlock.config)
    # Nothing listens on the port of discard.
    absent = "127.0.0.1:9"
    settings = {
        "registries": [{"registry": address, "plainHttp": True} for address in (registry.address, absent)],
        "intervalSeconds": 1,
        # A busy machine takes long for the first connection.
        "waitSeconds": 6,
        "recheckSeconds": 10,
    }
    weightlock.config |= {
        "policies": str(deny),
        "images": settings,
        "settings": {**before["settings"], "pinImages": True},
    }
    weightlock.restart()
    controllers = Controllers(weightlock, signs=True).prepare()
    controllers.start(config={"images": settings})
    try:
        eventually(lambda: '"became leader"' in controllers.log(), "a controller leads", seconds=WAIT)
        yield Images(weightlock, registry, absent)
    finally:
        controllers.stop()
    client = weightlock.cluster.client()
    for kind in ("imagetrusts", "imageverifications"):
        for item in client.get(f"{API}/{kind}").ok()["items"]:
            client.delete(f"{API}/{kind}/{item['metadata']['name']}")
    weightlock.config.clear()
    weightlock.config |= before
    weightlock.restart()


def test_each_cause_has_its_code(images: Images, namespace: str) -> None:
    """Signed, unsigned, another signer, a registry that is down, a tag of it: the verdict comes within the review."""
    signed, unsigned, other = images.image(), images.image(key=None), images.image(key=OTHER)
    assert images.verdict(namespace, unsigned) == "admitted", "no rule exists yet"
    images.trust("acme", REPOSITORY, KEY)
    eventually(lambda: images.verdict(namespace, unsigned) == "WL543", "the rule is known", seconds=WAIT)
    assert images.verdict(namespace, signed) == "admitted"
    assert images.verdict(namespace, other) == "WL544"
    losses = signed.replace(images.registry.address, images.gone)
    assert images.verdict(namespace, losses) == "WL545"
    # Its tag cannot be resolved, so it was not pinned.
    assert images.verdict(namespace, losses.partition("@")[0] + ":v1") == "WL545"
    assert images.verdict(namespace, signed, unsigned) == "WL543"


def test_no_place_in_a_pod_is_left_out(images: Images, namespace: str) -> None:
    """Init containers, image volumes, ephemeral containers, a replaced image, and the end of a long pod."""
    images.trust("acme", REPOSITORY, KEY)
    signed, unsigned = images.image(), images.image(key=None)
    eventually(lambda: images.verdict(namespace, unsigned) == "WL543", "the rule is known", seconds=WAIT)
    container = {"name": "i", "image": unsigned, "securityContext": RESTRICTED}
    assert images.verdict(namespace, signed, initContainers=[container]) == "WL543"
    volume = {"name": "v", "image": {"reference": unsigned}}
    assert images.verdict(namespace, signed, volumes=[volume]) == "WL543"
    assert images.verdict(namespace, *[signed] * 140, unsigned) == "WL543"
    images.create(images.pod(namespace, signed, name="running")).ok()
    client, path = images.cluster.client(), f"/api/v1/namespaces/{namespace}/pods/running"
    ephemeral = {"spec": {"ephemeralContainers": [{**container, "name": "debug"}]}}
    assert code_of(client.patch(f"{path}/ephemeralcontainers", ephemeral, kind="strategic")) == "WL543"
    replaced = {"spec": {"containers": [{"name": "c0", "image": unsigned}]}}
    assert code_of(client.patch(path, replaced, kind="strategic")) == "WL543"


def test_a_known_digest_needs_no_registry(images: Images, namespace: str) -> None:
    """The controller verifies images ahead of time. Afterwards the registry may be down, and replicas restart."""
    images.trust("acme", REPOSITORY, KEY)
    signed, unsigned, later = images.image(), images.image(key=None), images.image()
    for name, image in (("good", signed), ("bad", unsigned)):
        images.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": f"announced-{name}",
                    "namespace": "weightlock-system",
                    "labels": {"weightlock.dev/announced-images": "true"},
                },
                "data": {"images": image},
            }
        )
    eventually(lambda: images.stated(signed) and images.stated(unsigned), "the statements", seconds=WAIT)
    images.registry.stop()
    try:
        images.weightlock.restart()
        assert images.verdict(namespace, signed) == "admitted"
        assert images.verdict(namespace, unsigned) == "WL543"
        assert images.verdict(namespace, later) == "WL545"
    finally:
        images.registry.start()
    # The verification is repeated in the background.
    eventually(
        lambda: images.verdict(namespace, later) == "admitted", "verified again", seconds=WAIT, every=1
    )


def test_a_changed_rule_invalidates_its_own_statements(images: Images, namespace: str) -> None:
    """Another signer in one rule: its statements are replaced, those of the other rule stay as they are."""
    images.trust("acme", REPOSITORY, KEY)
    # Rules with the same signers share their statements.
    images.trust("tools", "acme/tools", THIRD)
    ours, tools = images.image(), images.image(key=THIRD, repository="acme/tools")
    for image in (ours, tools):
        eventually(
            lambda image=image: images.verdict(namespace, image) == "admitted",
            "the rules are known",
            seconds=WAIT,
        )
        images.create(images.pod(namespace, image)).ok()
    eventually(lambda: images.stated(ours) and images.stated(tools), "the statements", seconds=WAIT)
    (remaining,) = images.stated(tools)
    rule = images.stated(ours)[0]["spec"]["rule"]
    images.trust("acme", REPOSITORY, OTHER)
    eventually(lambda: images.verdict(namespace, ours) == "WL544", "another verdict", seconds=WAIT, every=0.5)
    assert images.verdict(namespace, tools) == "admitted"
    eventually(
        lambda: rule not in {item["spec"]["rule"] for item in images.statements().values()},
        "the old statements are deleted",
        seconds=WAIT,
    )
    assert images.stated(tools) == [remaining]


def test_a_tag_is_pinned(images: Images, namespace: str) -> None:
    """A pod by tag runs the digest that was verified, also when the tag moves."""
    images.trust("acme", REPOSITORY, KEY)
    signed = images.image()
    eventually(lambda: images.verdict(namespace, signed) == "admitted", "the rule is known", seconds=WAIT)
    tag = images.tags[signed]
    saved = images.create(images.pod(namespace, tag, name="by-tag")).ok()
    assert saved["spec"]["containers"][0]["image"] == f"{tag}@{signed.partition('@')[2]}"
    unsigned = images.image(key=None)
    assert images.verdict(namespace, images.tags[unsigned]) == "WL543"


def test_a_forged_statement_is_ignored_and_replaced(images: Images, namespace: str) -> None:
    """A user with write access states that an unsigned image is verified, in a new object and in an existing one."""
    images.trust("acme", REPOSITORY, KEY)
    signed = images.image()
    # An object holds the statements of one shard.
    unsigned = next(
        image
        for image in iter(lambda: images.image(key=None), "")
        if shard_of(image.partition("@")[2]) != shard_of(signed.partition("@")[2])
    )
    eventually(lambda: images.verdict(namespace, unsigned) == "WL543", "the rule is known", seconds=WAIT)
    images.create(images.pod(namespace, signed)).ok()
    eventually(lambda: images.stated(signed), "a statement", seconds=WAIT)
    (honest,) = images.stated(signed)
    rule, digest = honest["spec"]["rule"], unsigned.partition("@")[2]
    text = lines({digest: Statement(1, signers=({"key": "sha256:00"},))})
    spec = ImageVerificationSpec(rule=rule, shard=shard_of(digest), statements=text)
    name = object_name(rule, shard_of(digest))
    # The signature of another object, and none.
    for signature in (honest["spec"]["signature"], ""):
        forged = {**spec.model_dump(by_alias=True), "signature": signature}
        images.cluster.apply(
            {
                "apiVersion": "weightlock.dev/v1alpha1",
                "kind": "ImageVerification",
                "metadata": {"name": name},
                "spec": forged,
            }
        )
        for _ in range(3):
            assert images.verdict(namespace, unsigned) == "WL543"
    client = images.cluster.client()
    path = f"{API}/imageverifications/{honest['metadata']['name']}"
    client.patch(path, {"spec": {"signature": honest["spec"]["signature"][:-8] + "AAAAAAA="}}).ok()
    # Without a valid statement, the review verifies the image itself.
    assert images.verdict(namespace, signed) == "admitted"
    eventually(
        lambda: client.get(path).ok()["spec"]["signature"] != honest["spec"]["signature"][:-8] + "AAAAAAA=",
        "the controller writes the statement again",
        seconds=WAIT,
    )
