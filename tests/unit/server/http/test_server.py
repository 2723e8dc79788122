"""HTTP at the door: one clear line for everything that is wrong, bounded bodies, no bytes that make it fall over."""

import asyncio

import orjson
import pytest

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("method", "path", "status", "line"),
    [
        ("GET", "/", 404, "unknown path; the paths are"),
        ("GET", "/validate/", 404, "unknown path; the paths are"),
        ("POST", "/../validate", 404, "unknown path; the paths are"),
        ("GET", "/validate", 405, "use POST at /validate"),
        ("PUT", "/mutate?timeout=10s", 405, "use POST at /mutate"),
        ("POST", "/healthz", 405, "use GET, HEAD at /healthz"),
        ("DELETE", "/metrics", 405, "use GET, HEAD at /metrics"),
    ],
)
async def test_unknown_paths_and_methods(serve, method, path, status, line):
    client = await serve()
    matches, text = await client.get(path, method)
    if method == "POST" and ".." in path:
        assert matches in (400, 404, 415)
        return
    assert (matches, text.count("\n")) == (status, 1)
    assert text.startswith(line)


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"kind": "AdmissionReview"}', "not an admission.k8s.io/v1 AdmissionReview"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}', "no request"),
        (b"\xff\xfe\x00", "not valid Unicode"),
        (b"[" * 100_000, "nested too deep"),
    ],
)
async def test_a_body_other_than_a_review_is_a_400(serve, body, line):
    client = await serve()
    status, text = await client.post("/validate", body)
    assert status == 400
    assert line in text
    assert text.count("\n") == 1
    assert "Traceback" not in text


@pytest.mark.parametrize("uid", [7, None, "", "x" * 300, ["a"], {"a": 1}])
async def test_a_uid_that_is_none(serve, review, uid):
    client = await serve()
    status, text = await client.post("/validate", review(uid=uid))
    assert status == 400
    assert "request.uid must be a string" in text


@pytest.mark.parametrize(
    ("headers", "line"),
    [
        ({"Content_Type": "text/plain"}, "Content-Type must be application/json"),
        ({"Content_Type": "application/yaml"}, "Content-Type must be application/json"),
        ({"Content_Encoding": "gzip"}, "without Content-Encoding"),
    ],
)
async def test_an_unsupported_content_type_is_a_415(serve, review, headers, line):
    client = await serve()
    status, text = await client.post("/validate", review(), **headers)
    assert status == 415
    assert line in text


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/json "]
)
async def test_json_by_any_spelling(serve, review, content_type):
    client = await serve()
    assert (await client.post("/validate", review(), Content_Type=content_type))[0] == 200


async def test_a_review_of_almost_the_limit_is_taken_and_one_beyond_is_not(serve, review):
    client = await serve()
    padding = "x" * (3 * MIB)
    body = review(options={"padding": padding})
    assert (await client.post("/validate", body))[0] == 200
    status, text = await client.post("/validate", review(options={"padding": "x" * (4 * MIB)}))
    assert (status, text) == (413, f"the body is larger than {4 * MIB} bytes\n")


async def test_a_body_without_a_length_is_bounded_while_it_comes(serve):
    client = await serve()
    requests = []

    async def endless():
        for _ in range(64):
            requests.append(1)
            yield b"x" * MIB

    headers = {"Content-Type": "application/json"}
    url = f"https://localhost:{client.port}/validate"
    try:
        async with client.session.post(url, data=endless(), headers=headers) as response:
            assert response.status == 413
    except ConnectionError:
        pass
    assert len(requests) < 40


async def test_a_body_in_chunks(serve, review):
    client = await serve()
    body = review()

    async def pieces():
        for begin in range(0, len(body), 100):
            yield body[begin : begin + 100]
            await asyncio.sleep(0)

    url = f"https://localhost:{client.port}/validate"
    async with client.session.post(
        url, data=pieces(), headers={"Content-Type": "application/json"}
    ) as response:
        assert orjson.loads(await response.read())["response"]["allowed"]


async def test_a_body_that_does_not_come_is_a_408(serve, monkeypatch):
    monkeypatch.setattr("webhook.server.http.server._BODY_SECONDS", 0.1)
    client = await serve()
    head = b"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    answer = await client.bytes(head)
    assert answer.startswith(b"HTTP/1.1 408")
    assert answer.endswith(b"the body did not arrive within 0.1 seconds\n")


async def test_a_caller_that_waits_for_leave_gets_it(serve, review):
    client = await serve()
    reader, writer = await asyncio.open_connection("localhost", client.port, ssl=client.context)
    body = review()
    writer.write(
        b"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 Continue")
    writer.write(body)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_too_much_at_once_is_a_503(serve, review, monkeypatch):
    monkeypatch.setattr("webhook.server.http.server._MAX_BUFFERED", 100_000)
    client = await serve()
    status, text = await client.post("/validate", review(options={"padding": "x" * MIB}))
    assert (status, text) == (503, "too many large requests at once: retry\n")
    assert (await client.post("/validate", review()))[0] == 200


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\x00" * 64 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: minus\r\n\r\n",
        b"POST /validate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    ],
)
async def test_bytes_other_than_a_request_receive_one_line(serve, data):
    client = await serve()
    answer = await client.bytes(data)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert body == b"not a valid HTTP request\n"
    assert b"aiohttp" not in answer
    assert (await client.get("/healthz"))[0] == 200


async def test_requests_in_a_row_on_one_connection(serve):
    client = await serve()
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = await client.bytes(request * 2 + request.replace(b"Host: x", b"Host: x\r\nConnection: close"))
    assert answer.count(b"HTTP/1.1 200") == 3


async def test_a_handler_that_fails_is_a_500_without_words(serve, monkeypatch):
    client = await serve()

    def broken(_):
        raise RuntimeError("secret text")

    monkeypatch.setattr(client.webhook.metrics, "render", broken)
    status, text = await client.get("/metrics")
    assert (status, text) == (500, "internal error\n")
    monkeypatch.undo()
    assert 'weightlock_internal_errors_total{code="WL902"} 1.0' in (await client.get("/metrics"))[1]


async def test_the_cache_of_request_targets_is_bounded(serve, monkeypatch):
    monkeypatch.setattr("webhook.server.http.server._MAX_TARGETS", 5)
    client = await serve()
    for number in range(20):
        assert (await client.get(f"/healthz?n={number}"))[0] == 200
    (router, *_) = client.webhook._routers
    assert len(router._targets) <= 5
