"""Forwards TCP connections: `python -m tests.chaos.relay LISTEN=TARGET …`, each `HOST:PORT` or, to forward to, a path.

Two of these in a row, one on either side of a link, let a process that may talk to loopback only reach a server beyond
the link. What the link does to packets it does to them.
"""

import asyncio
import contextlib
import sys


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    sink.close()


async def _serve(listen: str, target: str) -> None:
    host, _, port = listen.rpartition(":")

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if target.startswith("/"):
                there = await asyncio.open_unix_connection(target)
            else:
                there = await asyncio.open_connection(*target.rsplit(":", 1))
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))

    server = await asyncio.start_server(forward, host, int(port))
    await server.serve_forever()


async def _main() -> None:
    await asyncio.gather(*(_serve(*pair.split("=", 1)) for pair in sys.argv[1:]))


if __name__ == "__main__":
    asyncio.run(_main())
