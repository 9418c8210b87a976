"""A server in production: SIGHUP puts a new process in its place, and no connection is lost.

It answers each line with the line in capitals; `nc 127.0.0.1 PORT` will do. POSIX only.
"""
import argparse
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import time

import iocpcore

SIGNALS = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
SPARE_FILES = 100   # descriptors for other things than sessions: log files, listening sockets, a database
PATIENCE = 10.0     # seconds for a successor to listen
GRACE = 1.0         # seconds for clients that have just connected to ask


class Client:
    def __init__(self) -> None:
        self.line = b""         # the start of the next line
        self.leaving = False


class Capitals:
    def on_connect(self, session: iocpcore.Session) -> None:
        session.data = Client()

    def on_receive(self, session: iocpcore.Session, data: bytes) -> None:
        client: Client = session.data
        *lines, client.line = (client.line + data).split(b"\n")
        for line in lines:
            session.send(line.upper() + b"\n")
        self.leave_if_idle(session)

    def on_end(self, session: iocpcore.Session) -> None:
        session.close()

    def on_shutdown(self, session: iocpcore.Session) -> None:
        """Whole lines that had come are answered already; wait for the rest of half a line."""
        session.data.leaving = True
        self.leave_if_idle(session)

    def leave_if_idle(self, session: iocpcore.Session) -> None:
        client: Client = session.data
        if client.leaving and not client.line:
            session.close()     # queued answers still go out


def allow_files(sessions: int) -> None:
    """Each session has a descriptor. The soft limit is often 1024; we may raise it up to the hard limit."""
    wanted = sessions + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        sys.exit(f"{sessions} sessions need {wanted} descriptors, and may have {hard}: see LimitNOFILE= or ulimit -Hn")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def start_successor(sock: socket.socket, arguments: list[str]) -> bool:
    """Start a new process with our listening socket. Returns whether it listens; if not, we go on."""
    try:
        ours, its = socket.socketpair()
        with ours, its:
            given = ["--inherited", str(sock.fileno()), "--tell", str(its.fileno())]
            command = [sys.executable, sys.argv[0], *arguments, *given]
            successor = subprocess.Popen(command, pass_fds=[sock.fileno(), its.fileno()])
            its.close()
            if is_told(ours):
                print(f"process {successor.pid} goes on", flush=True)
                return True
    except OSError:
        logging.exception("no successor can be started")
        return False
    try:
        status = successor.wait(1)
    except subprocess.TimeoutExpired:
        successor.kill()
        status = successor.wait()
    logging.error("the successor has ended with status %s, and has not listened", status)
    return False


def is_told(ours: socket.socket) -> bool:
    """Whether the successor says that it listens, before it ends or takes too long."""
    ours.settimeout(PATIENCE)
    try:
        return ours.recv(1) != b""
    except TimeoutError:
        return False


def tell_systemd() -> None:
    """If systemd has started us with Type=notify, tell it that we listen and are the main process now."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address.startswith("@"):
        address = "\0" + address[1:]
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(f"READY=1\nMAINPID={os.getpid()}".encode(), address)


def main() -> None:
    parser = argparse.ArgumentParser(description="Restarts without losing a connection: send it SIGHUP.")
    parser.add_argument("--port", type=int, default=9999)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--drain", type=float, default=20.0)
    parser.add_argument("--inherited", type=int, metavar="DESCRIPTOR", help="a predecessor's listening socket")
    parser.add_argument("--tell", type=int, metavar="DESCRIPTOR", help="a socket: written to when we listen")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    allow_files(options.sessions)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)   # sigwait() takes them
    if options.inherited is None:
        sock = socket.create_server(("127.0.0.1", options.port), backlog=1024)
    else:
        sock = socket.socket(fileno=options.inherited)
    proactor = iocpcore.Proactor(workers=2, max_sessions=options.sessions)
    # The listener closes the duplicate; our own socket goes to the successor.
    listener = proactor.listen(Capitals(), sock=sock.dup(), shared=True, idle_timeout=60.0, send_timeout=30.0)
    if options.tell is None:
        print(f"listening on 127.0.0.1:{listener.port}", flush=True)
    else:
        os.write(options.tell, b"!")
        os.close(options.tell)
    tell_systemd()

    same = ["--sessions", str(options.sessions), "--drain", str(options.drain)]
    while signal.sigwait(SIGNALS) == signal.SIGHUP and not start_successor(sock, same):
        pass
    listener.close()    # accepted connections are served; the successor accepts the others
    time.sleep(GRACE)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS - {signal.SIGHUP})   # now they end the drain and the process
    proactor.close(options.drain)
    logging.info("%d sessions are over", proactor.stats().closed)


if __name__ == "__main__":
    main()
