"""iocpcore beside another server: asyncio does the thinking and serves a status page, iocpcore's worker the traffic.

    python examples/embed.py --port 9999
    nc 127.0.0.1 9999           # each line comes back in capitals
    nc 127.0.0.1 STATUS_PORT    # the second line of the output names it; the statistics, as JSON

A program that has threads but no loop needs none of this: the callbacks come in a worker's thread, and every method of
a session may be called from any other.
"""

import argparse
import asyncio
import contextlib
import json

import iocpcore


async def look_up(line: bytes) -> bytes:
    """Stands for a database, or another service: something that has to be awaited."""
    await asyncio.sleep(0)
    return line.upper()


async def answer(session: iocpcore.Session, data: bytes) -> None:
    """In the loop's thread."""
    *lines, session.data = (session.data + data).split(b"\n")
    try:
        for line in lines:
            session.send(await look_up(line) + b"\n")
    except iocpcore.SessionClosed:
        pass  # the peer has gone in the meantime
    except BaseException:
        session.abort()  # it would stay paused for ever, and not even see its peer go
        raise
    else:
        session.resume()


class Gateway:
    """In the worker's thread, but for answer(): hands what comes to the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.answers: set[asyncio.Task[None]] = set()  # a loop refers to its tasks weakly

    def on_connect(self, session: iocpcore.Session) -> None:
        session.data = b""  # the beginning of a line whose end has not come yet

    def on_receive(self, session: iocpcore.Session, data: bytes) -> None:
        # Paused until it is answered: so answers keep their order, and the loop's backlog stays small.
        session.pause()
        self.loop.call_soon_threadsafe(self.answer, session, data)

    def answer(self, session: iocpcore.Session, data: bytes) -> None:
        task = self.loop.create_task(answer(session, data))
        self.answers.add(task)
        task.add_done_callback(self.answers.discard)


async def serve(host: str, port: int) -> None:
    proactor = iocpcore.Proactor()

    async def show_status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(proactor.stats().as_dict()).encode() + b"\n")
        writer.close()

    try:
        listener = proactor.listen(Gateway(asyncio.get_running_loop()), host, port)
        status = await asyncio.start_server(show_status, host)
        for what, address in ("listening", listener.address), ("status", status.sockets[0].getsockname()):
            print(f"{what} on {address[0]}:{address[1]}", flush=True)
        async with status:
            await status.serve_forever()
    finally:
        # It waits for sessions, and they may wait for this loop: so not here, but in another thread.
        await asyncio.to_thread(proactor.close)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="iocpcore beside an asyncio server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9999)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(options.host, options.port))
