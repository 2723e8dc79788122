"""The support of the test suite itself: shared compiled policies, and the distribution over processes."""

import compiled_policies
import pytest
import scheduling
import yaml
from harness import waiting

from webhook.api.config import Settings
from webhook.core.admission import snapshot as snapshots
from webhook.core.policies.compiler import compile_policy
from webhook.core.policies.policy_set import PolicySet
from webhook.manifests.reader import Manifest
from webhook.offline.provider import ManifestProvider

POLICY = """
apiVersion: weightlock.dev/v1alpha1
kind: WeightPolicy
metadata: {name: small}
spec:
  code: WL900
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], resources: [pods], operations: [CREATE]}]
  validations: [{expression: "object.metadata.name != 'NAME'", message: "no"}]
"""


def policies(name="a"):
    document = yaml.safe_load(POLICY.replace("NAME", name))
    return ManifestProvider([Manifest("test", document)], Settings()).snapshot().policies


def test_equal_policies_are_compiled_once_and_changed_ones_again():
    assert policies() is policies()
    assert policies("b") is not policies("a")
    assert policies("b").policies[0] != policies("a").policies[0]


def test_without_the_patch_the_compiler_is_the_programs_own(monkeypatch):
    monkeypatch.setattr(snapshots, "compile_policy", compile_policy)
    monkeypatch.setattr(snapshots, "PolicySet", PolicySet)
    own = policies(), policies()
    assert own[0] is not own[1]
    with pytest.MonkeyPatch.context() as patch:
        compiled_policies.share(patch)
        assert policies() is policies()
    assert snapshots.compile_policy is compile_policy


@pytest.mark.parametrize(
    ("node_id", "group"),
    [
        ("tests/e2e/node/test_story.py::test_it[a::b]", "tests/e2e/node"),
        ("tests/e2e/keys/test_release.py::test_it", "tests/e2e/keys"),
        ("tests/e2e/test_chart.py::test_it", "tests/e2e/test_chart.py"),
        ("tests/unit/api/test_codes.py::TestIt::test_it", "tests/unit/api/test_codes.py"),
    ],
)
def test_one_process_runs_a_file_or_a_directory_with_one_cluster(node_id, group):
    assert scheduling.group(node_id) == group


def test_the_longest_groups_exist(pytestconfig):
    for name in (*scheduling.LONGEST, *map(str, scheduling.TOGETHER)):
        assert (pytestconfig.rootpath / name).exists(), name


def test_the_longest_come_first_and_the_order_within_a_file_stays():
    class Item:
        def __init__(self, nodeid):
            self.nodeid = nodeid

    names = ["tests/e2e/test_access.py::b", "tests/e2e/test_access.py::a", f"{scheduling.LONGEST[1]}::x"]
    items = [Item(name) for name in [*names, f"{scheduling.LONGEST[0]}/test_a.py::y"]]
    scheduling.sort(items)
    assert [item.nodeid for item in items] == [f"{scheduling.LONGEST[0]}/test_a.py::y", names[2], *names[:2]]


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        ("0.10 0.20 0.30 1/99 1", 1.0),
        ("8.00 2.00 1.00 1/99 1", 4.0),
        ("0.50 2.00 1.00 12/99 1", 6.0),
        ("", 1.0),
    ],
)
def test_waits_are_longer_on_a_busy_machine(monkeypatch, tmp_path, load, expected):
    (tmp_path / "loadavg").write_text(load)
    monkeypatch.setattr(waiting, "LOAD", tmp_path / "loadavg")
    monkeypatch.setattr(waiting.os, "sched_getaffinity", lambda _: {0, 1})
    assert waiting.slowness() == expected
    monkeypatch.setattr(waiting, "LOAD", tmp_path / "none")
    assert waiting.slowness() == 1.0


def test_a_wait_ends_when_its_bound_for_this_load_is_over(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(waiting.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(waiting.time, "sleep", lambda _: None)
    monkeypatch.setattr(waiting, "slowness", lambda: 3.0)
    with pytest.raises(
        AssertionError, match=r"the answer: not within 12 s \(4 s, and 3.0 processes on a core\)"
    ):
        waiting.eventually(lambda: False, "the answer", seconds=4)
    assert waiting.eventually(lambda: "answer", "the answer", seconds=0) == "answer"
