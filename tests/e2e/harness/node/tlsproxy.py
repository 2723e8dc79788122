"""Serve TLS before a plain server of this machine, such as the tests' Vault.

python -m harness.node.tlsproxy HOST:PORT BACKEND-PORT CERTIFICATE KEY
"""

import asyncio
import contextlib
import ssl
import sys


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


async def main(address: str, backend: int, certificate: str, key: str) -> None:
    """Accept connections until the process ends."""
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_connection("127.0.0.1", backend)
        await asyncio.gather(_pipe(reader, inner[1]), _pipe(inner[0], writer))

    server = await asyncio.start_server(accept, host, int(port), ssl=context)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]))
