"""The webhook as a whole: ready when it should be, another certificate without a broken connection, an orderly end."""

import asyncio
import gc
import ssl

import pytest

from webhook.api.config import Callers, Listen
from webhook.server.admission import AdmissionService
from webhook.server.http.listener import ListenError, bind
from webhook.server.run import rare_collections
from webhook.server.tls import reload, self_signed


async def test_answers_over_tls(serve, review):
    client = await serve()
    assert await client.ask(review()) == {"uid": "uid-1", "allowed": True}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_speaks_tls_1_2_and_1_3(serve, version):
    client = await serve()
    client.context.minimum_version = client.context.maximum_version = version
    assert b"200" in await client.bytes(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_speaks_nothing_older(serve):
    client = await serve()
    client.context.set_ciphers("DEFAULT:@SECLEVEL=0")
    client.context.minimum_version = ssl.TLSVersion.TLSv1_1
    client.context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await client.bytes(b"GET /healthz HTTP/1.1\r\n\r\n")


class TestReady:
    """Alive and ready are two things."""

    async def test_ready(self, serve):
        client = await serve()
        assert await client.get("/healthz") == (200, "ok\n")
        assert await client.get("/readyz") == (200, "ready\n")
        assert await client.get("/readyz", "HEAD") == (200, "")

    async def test_not_without_a_snapshot(self, serve, make_source):
        source = make_source()
        source.trouble = "Weightlock has not read\nnamespaces yet"
        client = await serve(source)
        assert await client.get("/readyz") == (503, "not ready: Weightlock has not read namespaces yet\n")
        assert (await client.get("/healthz"))[0] == 200
        source.trouble = ""
        assert (await client.get("/readyz"))[0] == 200

    async def test_not_without_the_names_it_should_carry(self, serve):
        client = await serve(tls={"server_names": ["weightlock.weightlock-system.svc"]})
        status, text = await client.get("/readyz")
        assert status == 503
        assert "does not cover the name weightlock.weightlock-system.svc" in text

    async def test_not_while_stopping(self, serve):
        client = await serve()
        client.webhook.begin_stop()
        assert await client.get("/readyz") == (503, "not ready: stopping\n")

    async def test_the_plain_listener_serves_health_and_metrics_and_no_reviews(self, serve):
        client = await serve(metrics_listen=Listen(host="127.0.0.1", port=0))
        url = client.webhook.watch_address
        for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/validate", 404)):
            async with client.session.get(url + path) as response:
                assert response.status == status


class TestCertificate:
    """The certificate changes while connections go on."""

    @pytest.fixture(autouse=True)
    def _quickly(self, monkeypatch):
        monkeypatch.setattr(reload, "POLL_SECONDS", 0.05)

    async def fingerprint(self, client):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        _, writer = await asyncio.open_connection("127.0.0.1", client.port, ssl=context)
        matches = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return matches

    async def replaced(self, client, before):
        for _ in range(100):
            if await self.fingerprint(client) != before:
                return
            await asyncio.sleep(0.05)
        pytest.fail("the new certificate is not served")

    async def test_new_connections_get_the_new_one_and_old_ones_go_on(self, serve, review, tmp_path):
        client = await serve()
        before = await self.fingerprint(client)
        reader, writer = await asyncio.open_connection("localhost", client.port, ssl=client.context)
        new = self_signed.make(["localhost"])
        (tmp_path / "tls.crt").write_bytes(new.certificate)
        (tmp_path / "tls.key").write_bytes(new.key)
        await self.replaced(client, before)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"200" in await reader.read()
        writer.close()

    async def test_not_one_request_is_lost_while_it_changes(self, serve, review, tmp_path):
        client = await serve()
        changing = True
        answered = 0

        async def keep_asking():
            nonlocal answered
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            while changing:
                reader, writer = await asyncio.open_connection("127.0.0.1", client.port, ssl=context)
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert (await reader.read()).startswith(b"HTTP/1.1 200")
                writer.close()
                answered += 1

        asking = [asyncio.create_task(keep_asking()) for _ in range(4)]
        for _ in range(3):
            before = await self.fingerprint(client)
            new = self_signed.make(["localhost"])
            (tmp_path / "tls.key").write_bytes(new.key)
            await asyncio.sleep(0.07)
            (tmp_path / "tls.crt").write_bytes(new.certificate)
            await self.replaced(client, before)
        changing = False
        await asyncio.gather(*asking)
        assert answered > 4

    async def test_a_broken_pair_is_not_ready_and_the_old_one_is_served_on(self, serve, review, tmp_path):
        client = await serve()
        key = (tmp_path / "tls.key").read_bytes()
        (tmp_path / "tls.key").write_bytes(self_signed.make(["localhost"]).key)
        for _ in range(100):
            status, text = await client.get("/readyz")
            if status == 503:
                break
            await asyncio.sleep(0.02)
        assert "does not belong to the certificate" in text
        assert (await client.ask(review()))["allowed"]
        assert 'weightlock_internal_errors_total{code="WL902"} 1.0' in (await client.get("/metrics"))[1]
        (tmp_path / "tls.key").write_bytes(key)
        for _ in range(100):
            if (await client.get("/readyz"))[0] == 200:
                return
            await asyncio.sleep(0.02)
        pytest.fail("it does not recover")


class TestCaller:
    """Who may be believed to be the API server."""

    @pytest.fixture
    def pki(self, tmp_path, make_client_pair):
        make_client_pair("apiserver", "kube-apiserver-admission", "apiserver.example.com")
        make_client_pair("stranger", "kube-apiserver-admission", "apiserver.example.com")
        return tmp_path

    @pytest.fixture
    def trusted(self, serve, pki, monkeypatch):
        async def start(callers=None, **tls):
            seen = []
            real = AdmissionService._review

            async def spy(self, body, phase, step, *rest):
                seen.append(step.__name__ == "_mutate_signed")
                return await real(self, body, phase, step, *rest)

            monkeypatch.setattr(AdmissionService, "_review", spy)
            callers = Callers.model_validate(callers or {})
            client = await serve(tls={"client_ca": str(pki / "apiserver-ca.crt"), **tls}, callers=callers)
            return client, seen

        return start

    async def test_without_a_certificate_a_caller_is_rejected(self, trusted, review):
        client, seen = await trusted()
        denied = await client.post("/validate", review())
        assert denied == (403, "only the API server may send reviews\n")
        assert await client.post("/validate", review(name="other")) == denied
        assert seen == []
        assert (await client.get("/readyz"))[0] == 200
        text = (await client.get("/metrics"))[1]
        assert 'weightlock_connections_rejected_total{reason="unauthenticated"} 2.0' in text

    @pytest.mark.parametrize(
        "callers",
        [
            {"requireCertificate": False},
            {"allowUnauthenticated": True},
            {"addresses": ["127.0.0.0/8", "::1/128"]},
        ],
    )
    async def test_other_callers_are_answered_if_the_admin_says_so_and_not_trusted(
        self, trusted, review, callers
    ):
        client, seen = await trusted(callers)
        assert (await client.ask(review(), "/mutate"))["allowed"]
        assert seen == [False]

    async def test_an_address_that_is_not_listed_is_rejected(self, serve, review):
        client = await serve(callers=Callers(addresses=["192.0.2.0/24"]))
        assert (await client.post("/validate", review()))[0] == 403

    async def test_each_unknown_address_is_limited(self, serve, review):
        client = await serve(callers=Callers(requests_per_second=2))
        statuses = [(await client.post("/validate", review()))[0] for _ in range(6)]
        assert statuses[:4] == [200] * 4
        assert 429 in statuses

    @pytest.mark.parametrize(
        ("names", "status"),
        [
            ([], 200),
            (["kube-apiserver-admission"], 200),
            (["x", "apiserver.example.com"], 200),
            (["another"], 403),
        ],
    )
    async def test_with_a_certificate_of_the_authority(self, trusted, review, pki, names, status):
        client, seen = await trusted(client_names=names)
        client.context.load_cert_chain(pki / "apiserver.crt", pki / "apiserver.key")
        assert (await client.post("/mutate", review()))[0] == status
        assert seen == [True] * (status == 200)

    async def test_a_client_of_another_ca_is_not_served(self, trusted, pki):
        client, _ = await trusted()
        client.context.load_cert_chain(pki / "stranger.crt", pki / "stranger.key")
        try:
            answer = await client.bytes(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        except (ssl.SSLError, ConnectionError):
            answer = b""
        assert answer == b""


async def test_an_address_that_is_taken_is_one_line(serve, make_source):
    client = await serve()
    with pytest.raises(ListenError, match=r"cannot listen on 127\.0\.0\.1"):
        bind(Listen(host="127.0.0.1", port=client.port))


async def test_a_name_that_does_not_exist_is_one_line():
    with pytest.raises(ListenError, match=r"cannot listen on nowhere\.invalid"):
        bind(Listen(host="nowhere.invalid", port=0))


async def test_requests_in_flight_are_finished(serve, make_source, make_policy, review):
    rule = "authorizer.group('x.example.com').resource('y').check('use').allowed()"
    source = make_source(make_policy(rule), complete=False)
    queries, leave = asyncio.Event(), asyncio.Event()

    async def slow(needs):
        from webhook.cel.authz import Decision
        from webhook.core.admission.provider import FetchedData

        queries.set()
        await leave.wait()
        return FetchedData({question: Decision(allowed=True) for question in needs.questions})

    source.answers = slow
    client = await serve(source)
    asking = asyncio.create_task(client.ask(review()))
    await queries.wait()
    client.webhook.begin_stop()
    closing = [asyncio.create_task(listener.close(5)) for listener in client.webhook.listeners]
    await asyncio.sleep(0.05)
    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection("127.0.0.1", client.port)
    leave.set()
    assert (await asking)["allowed"]
    await asyncio.gather(*closing)


HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


async def answered_and_closed(client, reader, writer):
    """Begin to close; a request that comes a moment later is answered, and its connection ends with that."""
    closing = [asyncio.create_task(listener.close(5)) for listener in client.webhook.listeners]
    await asyncio.sleep(0.1)
    writer.write(HEALTHZ)
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Connection: close" in answer
    await asyncio.gather(*closing)


async def test_a_connection_just_made_is_given_a_moment_for_its_request(serve):
    client = await serve()
    await answered_and_closed(
        client, *await asyncio.open_connection("localhost", client.port, ssl=client.context)
    )


async def test_a_connection_that_brings_nothing_does_not_hold_up_the_end(serve, monkeypatch):
    monkeypatch.setattr("webhook.server.http.listener._LAST_REQUEST_SECONDS", 0.2)
    client = await serve()
    _, writer = await asyncio.open_connection("localhost", client.port, ssl=client.context)
    begun = asyncio.get_running_loop().time()
    await asyncio.gather(*(listener.close(5) for listener in client.webhook.listeners))
    assert asyncio.get_running_loop().time() - begun < 2
    writer.close()


async def test_a_connection_that_was_used_a_moment_ago_is_closed_by_its_next_answer(serve, monkeypatch):
    monkeypatch.setattr("webhook.server.http.listener._QUIET_SECONDS", 0.4)
    client = await serve()
    reader, writer = await asyncio.open_connection("localhost", client.port, ssl=client.context)
    writer.write(HEALTHZ)
    await reader.readuntil(b"\r\n\r\nok\n")
    await answered_and_closed(client, reader, writer)


async def test_an_idle_connection_does_not_hold_up_the_end(serve, monkeypatch):
    monkeypatch.setattr("webhook.server.http.listener._QUIET_SECONDS", 0.05)
    client = await serve()
    assert (await client.get("/healthz"))[0] == 200
    begun = asyncio.get_running_loop().time()
    await asyncio.gather(*(listener.close(5) for listener in client.webhook.listeners))
    assert asyncio.get_running_loop().time() - begun < 2


def test_the_collector_runs_rarely_only_while_a_worker_loads():
    before = gc.get_threshold()
    with rare_collections() as collector:
        assert gc.get_threshold()[0] > 100 * before[0]
        collector.close()
        assert gc.get_threshold() == before
    with pytest.raises(OSError, match="no"), rare_collections():
        raise OSError("no")
    assert gc.get_threshold() == before
