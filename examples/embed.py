"""iocpcore beside another server: asyncio computes the answers and serves a status page, iocpcore carries the traffic.

    python examples/embed.py --port 9999
    nc 127.0.0.1 9999           # each line comes back in capitals
    nc 127.0.0.1 STATUS_PORT    # the second line of the output names it; the statistics, as JSON

A program that has threads but no loop needs none of this: callbacks run in a worker's thread, and any thread may call
every method of a session.
"""

import argparse
import asyncio
import contextlib
import json
import signal

import iocpcore


async def look_up(line: bytes) -> bytes:
    """Stands for a database or another service that has to be awaited."""
    await asyncio.sleep(0)
    return line.upper()


async def answer(session: iocpcore.Session, data: bytes) -> None:
    """Runs in the loop's thread."""
    *lines, session.data = (session.data + data).split(b"\n")
    try:
        for line in lines:
            session.send(await look_up(line) + b"\n")
    except iocpcore.SessionClosed:
        pass  # the connection has ended meanwhile
    except BaseException:
        session.abort()  # else it would stay paused for ever, and not even notice that its peer has gone
        raise
    else:
        session.resume()


class Gateway:
    """Hands received data to the loop. Its methods run in the worker's thread, except answer()."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.answers: set[asyncio.Task[None]] = set()  # a loop has only weak references to its tasks

    def on_connect(self, session: iocpcore.Session) -> None:
        session.data = b""  # the start of a line that is not complete yet

    def on_receive(self, session: iocpcore.Session, data: bytes) -> None:
        # Paused until it is answered, so that answers keep their order and the loop's backlog stays small.
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
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        with contextlib.suppress(NotImplementedError):  # on Windows asyncio.run() has seen to it
            # Elsewhere its Ctrl+C does not wake a loop that is about to sleep: this one's does.
            loop.add_signal_handler(signal.SIGINT, task.cancel)
        listener = proactor.listen(Gateway(loop), host, port)
        status = await asyncio.start_server(show_status, host)
        for what, address in ("listening", listener.address), ("status", status.sockets[0].getsockname()):
            print(f"{what} on {address[0]}:{address[1]}", flush=True)
        async with status:
            await status.serve_forever()
    finally:
        # close() waits for sessions, which may wait for this loop: so another thread calls it.
        await asyncio.to_thread(proactor.close)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="iocpcore beside an asyncio server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9999)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(serve(options.host, options.port))
