"""An echo server of the kind that is named and its client, in one Windows process whose calls are counted.

    python echo.py KIND ECHOES PACKAGES [PROGRAM]

The client is the main thread, with blocking calls: a send and a recv for each echo, and a pause before it, so that the
server waits by then: the calls do not depend on who is faster. PACKAGES: a directory of packages;
PROGRAM: of the kind c-iocp, which does all of this itself.
"""
import asyncio
import os
import queue
import site
import socket
import subprocess
import sys
import threading
import time

TIMEOUT = 60.0  # seconds
PAUSE = 0.003
MESSAGE = b"fourteen bytes"


class AsyncioEcho(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


def on_asyncio(new_event_loop):
    def serve(listening):
        loop = new_event_loop()
        server = loop.run_until_complete(loop.create_server(AsyncioEcho, "127.0.0.1", 0))
        listening(server.sockets[0].getsockname()[1])
        loop.run_forever()

    return serve


def on_winloop(listening):
    import winloop

    on_asyncio(winloop.new_event_loop)(listening)


def on_twisted(listening):
    from twisted.internet import iocpreactor

    iocpreactor.install()
    from twisted.internet import reactor
    from twisted.internet.protocol import Factory, Protocol

    class Echo(Protocol):
        def connectionMade(self):
            self.transport.setTcpNoDelay(True)

        def dataReceived(self, data):
            self.transport.write(data)

    listening(reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1").getHost().port)
    reactor.run(installSignalHandlers=False)


class Echo:
    def on_receive(self, session, data):
        session.send(data)


def on_iocpcore(handler):
    def serve(listening):
        import iocpcore

        with iocpcore.Proactor(1) as proactor:
            listening(proactor.listen(handler or iocpcore.ECHO).port)
            threading.Event().wait()

    return serve


KINDS = {
    "iocpcore-windows": on_iocpcore(None),
    "python-windows": on_iocpcore(Echo()),
    "asyncio-proactor": on_asyncio(getattr(asyncio, "ProactorEventLoop", None)),
    "winloop": on_winloop,
    "twisted-iocp": on_twisted,
}


def start(kind):
    """The port of a server that runs in a thread."""
    news = queue.Queue()

    def run():
        try:
            KINDS[kind](news.put)
        except BaseException as error:
            news.put(error)

    threading.Thread(target=run, daemon=True).start()
    port = news.get(timeout=TIMEOUT)
    if isinstance(port, BaseException):
        raise SystemExit(f"{type(port).__name__}: {port}")
    return port


def echo(port, echoes):
    with socket.create_connection(("127.0.0.1", port)) as client:
        for number in range(echoes):
            time.sleep(PAUSE)
            message = bytes([number % 256]) + MESSAGE[1:]
            client.sendall(message)
            if (back := client.recv(len(message))) != message:
                raise SystemExit(f"{back!r} came back for {message!r}")


def main():
    kind, echoes, packages, *program = sys.argv[1:]
    if kind == "c-iocp":
        sys.exit(subprocess.run([*program, echoes]).returncode)
    site.addsitedir(packages)
    echo(start(kind), int(echoes))
    print(f"echoed {echoes}", flush=True)
    os._exit(0)  # the server is not asked to end: its calls would be counted


if __name__ == "__main__":
    main()
