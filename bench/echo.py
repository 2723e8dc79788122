"""The handler that the webhook is measured against: it reads a review and allows it, and does nothing else.

Written as anyone would write it with aiohttp: an application, one route, uvloop, no access log, the same TLS.
"""

import asyncio
import sys
from pathlib import Path

import orjson
import uvloop
from aiohttp import web

from webhook.api.config import Tls
from webhook.server.tls.certificates import load


async def validate(request):
    """Allow."""
    review = orjson.loads(await request.read())
    response = {"uid": review["request"]["uid"], "allowed": True}
    answer = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
    return web.Response(body=orjson.dumps(answer), content_type="application/json")


async def serve(directory, port):
    """Listen, and say so in a file."""
    app = web.Application(client_max_size=4 * 1024 * 1024)
    app.router.add_post("/validate", validate)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    tls = Tls(certificate=str(directory / "tls.crt"), key=str(directory / "tls.key"))
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=load(tls).context).start()
    print('"message":"ready"', file=sys.stderr, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
