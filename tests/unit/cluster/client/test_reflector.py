"""The watch of one kind against an API server that does everything an API server may do."""

import asyncio
import contextlib
import json
import time
from dataclasses import replace

import pytest
from harness.waiting import slowness

from webhook.cluster.client.kinds import KNOWN
from webhook.cluster.client.reflector import Reflector
from webhook.core.kube.objects import ObjectStore

CLAIMS = KNOWN["PersistentVolumeClaim"]
PATH = CLAIMS.path()


class CountingStore(ObjectStore):
    """A sink that counts."""

    def __init__(self):
        super().__init__(complete=False)
        self.changes = 0

    def changed(self):
        self.changes += 1

    def names(self, kind="PersistentVolumeClaim"):
        return sorted(item["metadata"]["name"] for item in self.each(kind))


@pytest.fixture
async def watch(api, fast):
    tasks = []

    def begin(kind=CLAIMS, **scope):
        sink = CountingStore()
        reflector = Reflector(api, kind, sink, fast, **scope)
        tasks.append(asyncio.create_task(reflector.run()))
        return reflector, sink

    yield begin
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_lists_and_then_follows(server, watch, eventually):
    await server.put(PATH, "one", "research")
    reflector, sink = watch()
    await eventually(lambda: reflector.synced)
    assert sink.names() == ["one"]
    await server.put(PATH, "two", "research")
    await eventually(lambda: sink.names() == ["one", "two"])
    await server.put(PATH, "two", "research", spec={"volumeName": "v"})
    await eventually(lambda: [i.get("spec") for i in sink.each(CLAIMS.name)] == [None, {"volumeName": "v"}])
    await server.delete(PATH, "one", "research")
    await eventually(lambda: sink.names() == ["two"])
    assert server.lists == [PATH]


async def test_lists_page_by_page(server, watch, eventually):
    server.page = 3
    for number in range(10):
        await server.put(PATH, f"claim-{number}", "research")
    reflector, sink = watch()
    await eventually(lambda: reflector.synced)
    assert len(sink.names()) == 10
    assert len(server.lists) == 4


async def test_only_fields_needed_for_verdicts_are_stored(server, watch, eventually):
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "atlas"}
    metadata = {"managedFields": [{"manager": "kubectl"}], "annotations": annotations}
    await server.put(PATH, "one", "research", metadata=metadata, status={"phase": "Bound"})
    reflector, sink = watch()
    await eventually(lambda: reflector.synced)
    (stored,) = sink.each(CLAIMS.name)
    assert (stored["apiVersion"], stored["kind"]) == ("v1", "PersistentVolumeClaim")
    assert stored["metadata"]["annotations"] == {"team": "atlas"}
    assert "managedFields" not in stored["metadata"]
    assert "status" not in stored


async def test_goes_on_after_a_broken_connection_without_a_new_list(server, watch, eventually):
    reflector, sink = watch()
    await eventually(lambda: len(server.watches) == 1)
    await server.put(PATH, "one", "research")
    await eventually(lambda: sink.names() == ["one"])
    server.drop()
    await server.put(PATH, "two", "research")
    await eventually(lambda: sink.names() == ["one", "two"])
    assert server.lists == [PATH]
    assert reflector.synced


async def test_lists_again_when_the_resource_version_is_gone(server, watch, eventually):
    await server.put(PATH, "stays", "research")
    await server.put(PATH, "goes", "research")
    _, sink = watch()
    await eventually(lambda: sink.names() == ["goes", "stays"] and len(server.watches) == 1)
    server.oldest = server.version + 2
    del server.objects[PATH]["research", "goes"]
    server.version += 5
    server.drop()
    await eventually(lambda: sink.names() == ["stays"])
    assert server.lists == [PATH, PATH]


async def test_survives_a_restart_of_the_api_server(server, watch, eventually):
    reflector, sink = watch()
    await eventually(lambda: reflector.synced)
    seen = reflector.seen
    await server.stop()
    await eventually(lambda: "cannot be reached" in reflector.last_error)
    assert reflector.synced
    assert reflector.seen - seen < 2
    server.objects[PATH]["research", "new"] = {"metadata": {"name": "new", "namespace": "research"}}
    server.version += 1
    server.oldest = server.version
    await server.start()
    await eventually(lambda: sink.names() == ["new"])
    await eventually(lambda: reflector.last_error == "")


async def test_a_kind_that_is_no_longer_there_is_not_believed_until_it_is_back(server, watch, eventually):
    await server.put(PATH, "one", "research")
    reflector, sink = watch()
    await eventually(lambda: reflector.synced and len(server.watches) == 1)
    server.refuse[PATH] = 404
    server.drop()
    await eventually(lambda: reflector.seen == 0)
    assert sink.names() == ["one"]
    del server.refuse[PATH]
    await eventually(lambda: reflector.seen > 0 and reflector.last_error == "")


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n",
        b"[]\n",
        b'{"type": "ADDED"}\n',
        b'{"type": "ADDED", "object": {}}\n',
        b'{"type": "ADDED", "object": {"metadata": {"resourceVersion": "7"}}}\n',
        b'{"type": "ADDED", "object": {"metadata": {"name": "x", "resourceVersion": 7}}}\n',
        b'{"type": "INVENTED", "object": {"metadata": {"name": "x", "resourceVersion": "7"}}}\n',
        b"\xff\xfe\n",
        b"\n",
    ],
)
async def test_an_unreadable_event_causes_a_new_list(server, watch, eventually, line):
    await server.put(PATH, "one", "research")
    _, sink = watch()
    await eventually(lambda: len(server.watches) == 1)
    await server.garbage(PATH, line)
    await eventually(lambda: len(server.lists) == 2)
    await server.put(PATH, "two", "research")
    await eventually(lambda: sink.names() == ["one", "two"])


async def test_drops_an_event_that_was_cut_off(server, watch, eventually):
    _, sink = watch()
    await eventually(lambda: len(server.watches) == 1)
    await server.garbage(PATH, json.dumps({"type": "ADDED", "object": {}}).encode()[:20])
    await asyncio.sleep(0.05)
    server.drop()
    await server.put(PATH, "one", "research")
    await eventually(lambda: sink.names() == ["one"])


async def test_takes_events_that_come_in_pieces_and_in_heaps(server, watch, eventually):
    _, sink = watch()
    await eventually(lambda: len(server.watches) == 1)
    lines = b"".join(
        json.dumps(
            {
                "type": "ADDED",
                "object": {"metadata": {"name": f"c{n}", "namespace": "r", "resourceVersion": str(n)}},
            }
        ).encode()
        + b"\n"
        for n in range(1000, 1100)
    )
    for begin in range(0, len(lines), 997):
        await server.garbage(PATH, lines[begin : begin + 997])
        await asyncio.sleep(0)
    await eventually(lambda: len(sink.names()) == 100)


async def test_replaces_nul_characters(server, watch, eventually):
    await server.put(PATH, "one", "research", metadata={"annotations": {"a": "x\0y", "b": "x\\u0000y"}})
    reflector, sink = watch()
    await eventually(lambda: reflector.synced)
    (stored,) = sink.each(CLAIMS.name)
    assert stored["metadata"]["annotations"] == {"a": "x\ufffdy", "b": "x\\u0000y"}


async def test_a_silent_connection_ends(server, watch, eventually, monkeypatch):
    reflector, _ = watch()
    await eventually(lambda: len(server.watches) == 1)
    server.silent = True
    server.drop()
    begun = time.monotonic()
    await eventually(lambda: reflector.last_error != "", seconds=8)
    await eventually(lambda: "timed out" in reflector.last_error, seconds=8)
    assert time.monotonic() - begun < 8 * slowness()
    server.silent = False
    await eventually(lambda: reflector.last_error == "", seconds=8)


async def test_an_optional_kind_may_be_absent_and_come_and_go(server, watch, eventually):
    kind = KNOWN["VolumeSnapshot.snapshot.storage.k8s.io"]
    path = kind.path()
    server.refuse[path] = 404
    reflector, sink = watch(kind)
    await eventually(lambda: reflector.synced)
    assert sink.names(kind.name) == []
    del server.refuse[path]
    await server.put(path, "one", "research")
    await eventually(lambda: sink.names(kind.name) == ["one"])
    server.refuse[path] = 404
    server.drop()
    await eventually(lambda: sink.names(kind.name) == [])


async def test_another_kind_may_not(server, watch, eventually):
    server.refuse[PATH] = 404
    reflector, _ = watch()
    await eventually(
        lambda: "the cluster does not serve persistentvolumeclaims of v1" in reflector.last_error
    )
    assert not reflector.synced
    del server.refuse[PATH]
    await eventually(lambda: reflector.synced)


async def test_a_forbidden_list_is_reported(server, watch, eventually):
    server.refuse[PATH] = 403
    reflector, _ = watch(replace(CLAIMS, optional=True))
    await eventually(lambda: "no /api/v1/persistentvolumeclaims" in reflector.last_error)
    assert not reflector.synced


async def test_watches_a_part_of_a_kind(server, watch, eventually):
    await server.put(PATH, "one", "research")
    await server.put(PATH, "two", "research")
    await server.put(PATH, "one", "other")
    reflector, sink = watch(namespace="research", selectors={"fieldSelector": "metadata.name=one"})
    await eventually(lambda: reflector.synced)
    assert [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in sink.each(CLAIMS.name)] == [
        ("research", "one")
    ]


async def test_quiet_watches_prove_that_they_are_current(server, watch, eventually):
    reflector, _ = watch()
    await eventually(lambda: reflector.synced)
    first = reflector.seen
    await eventually(lambda: reflector.seen > first + 0.9)
    assert server.lists == [PATH]
