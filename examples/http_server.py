"""A small HTTP/1.1 server with keep-alive and pipelining; httptools parses (pip install "iocpcore[examples]").

    python examples/http_server.py --port 8080
    curl http://127.0.0.1:8080/
    curl --data-binary @README.md http://127.0.0.1:8080/echo
    wrk -c 50 http://127.0.0.1:8080/
"""

import argparse
from http import HTTPStatus

import httptools

import iocpcore

BODY_MOST = 1 << 20  # bytes


def answer(method: bytes, target: bytes, body: bytes) -> tuple[HTTPStatus, bytes]:
    """The application."""
    if target == b"/echo":
        return (HTTPStatus.OK, body) if method == b"POST" else (HTTPStatus.METHOD_NOT_ALLOWED, b"")
    if target != b"/":
        return HTTPStatus.NOT_FOUND, b"not here\n"
    return (HTTPStatus.OK, b"Hello\n") if method in (b"GET", b"HEAD") else (HTTPStatus.METHOD_NOT_ALLOWED, b"")


class Exchange:
    """The requests of one connection. httptools calls the methods whose names begin with on_."""

    def __init__(self, session: iocpcore.Session) -> None:
        self.session = session
        self.parser = httptools.HttpRequestParser(self)
        self.over = False  # the last answer was given

    def receive(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # we support no other protocol; the request was answered as plain HTTP
        except httptools.HttpParserError as error:
            self.respond(HTTPStatus.BAD_REQUEST, f"{error}\n".encode(), keep_alive=False)

    def on_message_begin(self) -> None:
        self.target = b""
        self.body = bytearray()

    def on_url(self, url: bytes) -> None:
        self.target += url  # it may come in pieces

    def on_body(self, body: bytes) -> None:
        self.body += body
        if len(self.body) > BODY_MOST:
            self.respond(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"", keep_alive=False)

    def on_message_complete(self) -> None:
        status, body = answer(self.parser.get_method(), self.target, bytes(self.body))
        self.respond(status, body, self.parser.should_keep_alive() and not self.parser.should_upgrade())

    def respond(self, status: HTTPStatus, body: bytes, keep_alive: bool) -> None:
        if self.over:
            return
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            "Content-Type: text/plain\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"Connection: {'keep-alive' if keep_alive else 'close'}\r\n\r\n"
        )
        if self.parser.get_method() == b"HEAD":
            body = b""
        if not self.session.send(head.encode() + body):
            self.session.pause()  # no more requests from a client that does not read the answers
        if not keep_alive:
            self.over = True
            self.session.close()


class Http:
    """No on_end: a client that has finished sending gets its answers, then the session closes by itself."""

    def on_connect(self, session: iocpcore.Session) -> None:
        session.data = Exchange(session)

    def on_receive(self, session: iocpcore.Session, data: bytes) -> None:
        session.data.receive(data)

    def on_drain(self, session: iocpcore.Session) -> None:
        session.resume()

    def on_close(self, session: iocpcore.Session, error: OSError | None) -> None:
        session.data = None  # break the reference cycle, so that both are freed at once


def serve(host: str, port: int, workers: int) -> None:
    with iocpcore.Proactor(workers) as proactor:
        listener = proactor.listen(Http(), host, port, max_sessions=10_000, idle_timeout=30.0)
        host, port = listener.address[:2]
        iocpcore.run(proactor, started=lambda: print(f"listening on {host}:{port}", flush=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A small HTTP/1.1 server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    serve(options.host, options.port, options.workers)
