"""A soak: an echo server on a real kernel, and plain sockets that do to it what real peers do.

    python tests/soak/soak.py --seconds 60 --backend epoll --seed 1

Rounds follow each other until the time is over. In each, this process has a proactor, and processes of their own are
its clients: they split at random, stall, end half-way, reset, read slowly, flood, and some are killed. A thread beside
them opens and closes listeners and runs native loads. Some rounds end when all clients have gone, others under load.

What must hold: every byte that a peer sent comes back, in order, once, unless the peer itself, a kill or our close
ended the connection; the statistics balance at every snapshot, and a peer that does not read cannot make the server
hold much; after each round no session, operation, buffer, thread, descriptor or handle remains.

The seed fixes what is tried, not how the system's threads run. Exit status 1: a rule was broken; the seed is named.
"""

import argparse
import collections
import contextlib
import json
import random
import selectors
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run by hand, and as a client, it is on its own

from support import WAIT, assert_nothing_left, balanced, is_wine, open_handles, receive_exactly, reset, spawn, until

# A prime, so that no size of a piece or buffer divides it: what is lost, doubled or exchanged shows.
PERIOD = 65521
PATTERN = random.Random(PERIOD).randbytes(PERIOD) * 2
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
STUCK = 60.0  # seconds without anything happening after which a connection hangs
MEDDLE = 0.1  # seconds between two listeners that come and go
# Wine 8 forgets to close the sockets of a process that is killed while it selects: their peers never hear of it.
WINE = sys.platform == "win32" and is_wine()
QUEUED_MOST = 65_536 + 8 * 16_384  # bytes for a session: the high-water mark, and a receive of 8 buffers more
BUFFERS_MOST = 16 + 1  # ... those that a send gathers, and one to receive into
BLOCKED = 0.3  # seconds after which a flood that cannot send on begins to read


class Violation(AssertionError):
    """A rule was broken."""


class Broken(Exception):
    """A connection ended, or hangs, though its peer did nothing to it. Forgivable only if the server was closing."""


class WrongByte(Broken):
    """Never forgivable."""


# ---- one peer ----


class Peer:
    """A plain socket, and what has gone and come back of its stream.

    Scripts are generators: they yield (what to wait for, until when), and are sent what is ready.
    """

    def __init__(self, address, generator, tiny_window=False):
        self.random = generator
        self.sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        if tiny_window:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.settimeout(WAIT)
        try:
            self.sock.connect(tuple(address))
        except OSError:
            self.sock.close()
            raise
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.offset = generator.randrange(PERIOD)
        self.sent = self.received = 0
        self.ended = False
        self.read_at = self.write_at = 0.0  # pausing until then

    def between(self, limits):
        return self.random.randint(*limits)

    def pattern(self, position, length):
        start = (self.offset + position) % PERIOD
        return PATTERN[start : start + length]

    def send(self, most):
        piece = self.pattern(self.sent, min(most, PERIOD))
        with contextlib.suppress(BlockingIOError):
            self.sent += self.sock.send(piece)

    def receive(self, most):
        try:
            data = self.sock.recv(most)
        except BlockingIOError:
            return
        if not data:
            self.ended = True
        if self.received + len(data) > self.sent:
            raise WrongByte(f"{self.received + len(data) - self.sent} bytes more than the {self.sent} that were sent")
        if data != self.pattern(self.received, len(data)):
            raise WrongByte(f"a wrong byte among the {len(data)} from {self.received} on")
        self.received += len(data)

    def exchange(self, send, receive, pieces=(1, 20_000), reads=(1, 65_000), pause=0.0, patience=None):
        """Until that many bytes have gone and come back in all.

        pause: seconds to wait, at most, after each read; patience: when nothing moves for so long, leave it at that.
        """
        while self.sent < send or self.received < receive:
            now = time.monotonic()
            wants = READ * (self.received < receive and now >= self.read_at)
            wants |= WRITE * (self.sent < send and now >= self.write_at)
            later = [at for at in (self.read_at, self.write_at) if at > now]
            if patience is not None:
                later.append(now + patience)
            ready = yield wants, min(later, default=None)
            if not ready and patience is not None:
                return
            if ready & READ:
                self.receive(self.between(reads))
                if self.ended:
                    raise Broken(f"the end after {self.received} of {self.sent} bytes")
                self.read_at = time.monotonic() + pause * self.random.random()
            if ready & WRITE:
                self.send(min(send - self.sent, self.between(pieces)))

    def pause(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            yield 0, end

    def end(self):
        """Half-close, and read what is still to come: all of it, then the end."""
        self.sock.shutdown(socket.SHUT_WR)
        while not self.ended:
            yield READ, None
            self.receive(65_536)
        if self.received != self.sent:
            raise Broken(f"the end after {self.received} of {self.sent} bytes")

    def leave(self):
        """All has come back: go, in one of the three ways there are."""
        way = self.random.random()
        if way < 0.6:
            yield from self.end()
        elif way < 0.8:
            reset(self.sock)


# ---- what peers do: one script each ----


def plain(peer, _life):
    size = peer.between((1, 200_000))
    yield from peer.exchange(size, size)
    yield from peer.leave()


def tiny(peer, _life):
    size = peer.between((1, 400))
    yield from peer.exchange(size, size, pieces=(1, 3))
    yield from peer.leave()


def half_close(peer, _life):
    """End before anything was read. As much as the buffers between hold, or it could not be sent."""
    yield from peer.exchange(peer.between((1, 60_000)), 0)
    yield from peer.end()


def end_at_once(peer, _life):
    yield from peer.end()


def slow_reader(peer, _life):
    size = peer.between((10_000, 200_000))
    yield from peer.exchange(size, size, pieces=(1, 50_000), reads=(1, 8_000), pause=0.02)
    yield from peer.leave()


def stall(peer, life):
    """Stop reading, sending or both in the middle."""
    size = peer.between((1, 400_000))
    middle = peer.between((0, size))
    yield from peer.exchange(middle, peer.between((0, middle)), patience=BLOCKED)
    now = time.monotonic()
    peer.read_at = now + peer.random.uniform(0, min(3, life / 2))
    peer.write_at = now + peer.random.uniform(0, min(3, life / 2))
    yield from peer.exchange(size, size)
    yield from peer.leave()


def idle(peer, _life):
    """Silent for about as long as a server keeps a receive buffer for a silent session: data meets its cancel."""
    size = 0
    for _ in range(peer.between((1, 2))):
        size += peer.between((1, 5_000))
        yield from peer.exchange(size, size)
        yield from peer.pause(peer.random.uniform(4.99, 5.02))
    size += peer.between((1, 50_000))
    yield from peer.exchange(size, size)
    yield from peer.leave()


def flood(peer, _life):
    """Send without reading until nothing goes any more; then read everything, or reset."""
    size = peer.between((1 << 20, 6 << 20))
    yield from peer.exchange(size, 0, pieces=(1, 65_000), patience=BLOCKED)
    if peer.random.random() < 0.3:
        reset(peer.sock)
        return
    yield from peer.exchange(size, size, pieces=(1, 65_000))
    yield from peer.leave()


def cut(peer):
    """Somewhere in an exchange, with bytes under way in both directions."""
    size = peer.between((1, 100_000))
    yield from peer.exchange(size, peer.between((0, size)), patience=BLOCKED)


def reset_midway(peer, _life):
    yield from cut(peer)
    reset(peer.sock)


def vanish(peer, _life):
    """close() with unread input, most likely: the system makes a reset of it."""
    yield from cut(peer)


def reset_at_once(peer, _life):
    """Perhaps before it was accepted."""
    reset(peer.sock)
    yield from ()


def urgent(peer, _life):
    """One urgent byte: it is out of band, so the echo knows nothing of it."""
    size = peer.between((2, 100_000))
    yield from peer.exchange(peer.between((1, size)), 0, patience=BLOCKED)
    with contextlib.suppress(BlockingIOError):
        peer.sock.send(b"!", socket.MSG_OOB)
    yield from peer.exchange(size, size)
    yield from peer.leave()


SCRIPTS = {  # and how often each is chosen
    plain: 20,
    tiny: 10,
    half_close: 15,
    end_at_once: 4,
    slow_reader: 6,
    stall: 4,
    flood: 4,
    reset_midway: 15,
    vanish: 10,
    reset_at_once: 10,
    urgent: 4,
    idle: 2,
}
LONG_LIFE = 15.0  # seconds that a client must have for the long scripts
NAMES = {script.__name__: script for script in SCRIPTS}


def choice_of_scripts(life):
    if life < LONG_LIFE:
        return [script for script in SCRIPTS if script is not idle]
    return list(SCRIPTS)


# ---- a process of peers ----


class Crowd:
    """Many peers in one thread: each runs its script, and when it is over another takes its place.

    settings: addresses, seed, life (seconds in which new ones begin), peers (at a time), connections (at most in all),
    scripts (names, to have these only). report is called with a dict, at least every half second.
    """

    def __init__(self, settings, report):
        self.addresses = settings["addresses"]
        self.random = random.Random(settings["seed"])
        self.life = settings["life"]
        self.peers = settings["peers"]
        self.left = settings["connections"]
        self.scripts = [NAMES[name] for name in settings.get("scripts", ())] or choice_of_scripts(self.life)
        self.stuck = settings.get("stuck", STUCK)
        self.until = time.monotonic() + self.life
        self.tell = report
        self.selector = selectors.DefaultSelector()
        self.running = {}  # peer: its script
        self.waiting = {}  # peer: (what for, until when, when it is stuck)
        self.began = collections.Counter()
        self.bytes = 0
        self.told_at = 0.0

    def run(self):
        while self.start_peers() or self.running:
            for peer, ready in self.ready():
                self.step(peer, ready)
            if time.monotonic() > self.told_at + 0.5:
                self.report(over=False)
        self.report(over=True)

    def start_peers(self):
        """Whether more will follow."""
        while self.left > 0 and time.monotonic() < self.until and len(self.running) < self.peers:
            self.left -= 1
            self.start_peer()
        return self.left > 0 and time.monotonic() < self.until

    def start_peer(self):
        script = self.random.choices(self.scripts, [SCRIPTS[script] for script in self.scripts])[0]
        name = script.__name__
        self.began[name] += 1
        generator = random.Random(self.random.getrandbits(64))
        try:
            peer = Peer(generator.choice(self.addresses), generator, script is slow_reader)
        except OSError as error:
            self.left = 0  # nobody listens any more
            self.report_broken(name, f"cannot connect: {error}", False)
            return
        self.running[peer] = name, script(peer, self.life)
        self.step(peer, None)

    def ready(self):
        """Every peer whose wait is over, with what it waited for, or 0."""
        now = time.monotonic()
        timeout = max(0, min([at for wait in self.waiting.values() for at in wait[1:] if at], default=now) - now)
        found = {}
        if self.selector.get_map():
            found = {key.data: events for key, events in self.selector.select(min(timeout, 0.5))}
        elif timeout:
            time.sleep(min(timeout, 0.5))
        now = time.monotonic()
        late = [peer for peer, wait in self.waiting.items() if wait[1] and wait[1] <= now or wait[2] <= now]
        return [*found.items(), *((peer, 0) for peer in late if peer not in found)]

    def step(self, peer, ready):
        name, script = self.running[peer]
        try:
            if ready == 0 and self.waiting[peer][2] <= time.monotonic():
                raise Broken(f"nothing happens after {peer.sent} bytes sent, {peer.received} received")
            wants, at = script.send(ready)
        except StopIteration:
            self.stop_peer(peer)
        except (Broken, OSError) as error:
            self.stop_peer(peer)
            self.report_broken(name, str(error), isinstance(error, WrongByte))
        else:
            self.wait_for(peer, wants, at)

    def wait_for(self, peer, wants, at):
        before = self.waiting.get(peer, (0,))[0]
        self.waiting[peer] = wants, at, max(time.monotonic(), at or 0) + self.stuck
        if wants == before:
            return
        if before and wants:
            self.selector.modify(peer.sock, wants, peer)
        elif wants:
            self.selector.register(peer.sock, wants, peer)
        else:
            self.selector.unregister(peer.sock)

    def stop_peer(self, peer):
        if self.waiting.pop(peer, (0,))[0]:
            self.forget(peer)
        peer.sock.close()
        del self.running[peer]
        self.bytes += peer.received

    def forget(self, peer):
        """A script may have closed its socket: then it has no number any more to be found by."""
        for key in list(self.selector.get_map().values()):
            if key.data is peer:
                self.selector.unregister(key.fd)

    def report_broken(self, name, text, wrong_byte):
        self.tell({"broken": f"{name}: {text}", "at": time.monotonic(), "wrong_byte": wrong_byte})

    def report(self, over):
        self.told_at = time.monotonic()
        bytes_now = self.bytes + sum(peer.received for peer in self.running)
        self.tell({"began": self.began, "bytes": bytes_now, "open": len(self.running), "over": over})


class Client:
    """A Crowd in a process of its own, from the server's side."""

    def __init__(self, settings, dies_at):
        command = [sys.executable, __file__, "--crowd", json.dumps(settings)]
        self.process = spawn(subprocess.Popen, command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.dies_at = dies_at
        self.killed = False
        self.last = {"began": {}, "bytes": 0, "open": 0, "over": False}
        self.broken = []
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            try:
                report = json.loads(line)
            except ValueError:
                return  # killed in the middle of a line
            if "broken" in report:
                self.broken.append(report)
            else:
                self.last = report

    def kill(self):
        self.killed = True
        self.process.kill()

    def ended(self):
        return self.process.poll() is not None

    def close(self):
        """Whatever it does, it is gone afterwards."""
        self.process.kill()
        self.process.wait(WAIT)
        self.reader.join(WAIT)
        self.process.stdout.close()


# ---- the server ----


def eventually(condition, otherwise):
    """until(), and in words what is the case instead."""
    try:
        until(condition)
    except AssertionError:
        raise Violation(otherwise()) from None


class Soak:
    """Rounds of a server that is not spared. run() raises Violation; `total` says what has been tried."""

    def __init__(self, *, backend, seed, seconds, workers=2, clients=2, peers=40, connections=100_000, tell=None):
        self.backend = backend
        self.seed = seed
        self.seconds = seconds
        self.workers = workers
        self.clients = clients
        self.peers = peers
        self.connections = connections
        self.tell = tell or (lambda line: None)
        self.total = collections.Counter()
        self.scripts = collections.Counter()

    def run(self):
        import iocpcore  # the clients need no module: they are plain peers

        self.module = iocpcore
        self.warm_up()
        end = time.monotonic() + self.seconds
        number = 0
        while number == 0 or time.monotonic() < end:
            handles, threads = open_handles(), threading.active_count()
            # Nobody keeps the round: on Windows locks, threads and processes have handles as long as there are objects.
            Round(self, number, end - time.monotonic()).run()
            eventually(
                lambda h=handles, t=threads: open_handles() <= h and threading.active_count() <= t,
                lambda h=handles, t=threads: (
                    f"{open_handles()} handles and {threading.active_count()} threads, not {h} and {t}"
                ),
            )
            number += 1
        return self.total

    def warm_up(self):
        """What a process opens once and keeps, the libraries for sockets among it, is no leak of the first round."""
        with self.module.Proactor(1, self.backend) as proactor:
            socket.create_connection(proactor.listen(self.module.ECHO).address, timeout=WAIT).close()


class Round:
    """One proactor, from its start to the last proof that nothing of it is left."""

    def __init__(self, soak, number, seconds_left):
        self.soak = soak
        self.name = f"{soak.seed}/{number}"
        self.random = random.Random(self.name)
        self.seconds = min(self.random.uniform(5, 30), max(seconds_left, 1))
        self.workers = self.random.randint(1, soak.workers)
        self.inline = self.random.random() < 0.75
        # When it ends under load: how long the sessions may drain.
        self.drain = self.random.choice([None, None, 0, 0.1, 1])
        self.closing_at = None
        self.over = threading.Event()
        self.made = 0
        self.clients = []
        self.problem = None

    def run(self):
        meddler = threading.Thread(target=self.meddle)
        proactor = self.proactor = self.soak.module.Proactor(
            self.workers, self.soak.backend, skip_on_success=self.inline
        )
        try:
            self.addresses = self.listen()
            self.until = time.monotonic() + self.seconds
            meddler.start()
            for _ in range(self.soak.clients):
                self.start_client()
            self.serve()
            if self.drain is None:
                self.let_all_leave(meddler)
            self.close_proactor()
            self.wait_for_clients()
        finally:
            self.over.set()
            self.closing_at = self.closing_at or time.monotonic()
            for client in self.clients:
                client.close()
            proactor.close(0)
            if meddler.ident:
                meddler.join(2 * WAIT)
        self.look()
        self.judge()
        if self.problem:
            raise self.problem
        assert_nothing_left(proactor)
        self.count(proactor.stats())

    def listen(self):
        listeners = [self.proactor.listen(self.soak.module.ECHO)]
        with contextlib.suppress(OSError):  # a machine without IPv6
            listeners.append(self.proactor.listen(self.soak.module.ECHO, "::1"))
        return [listener.address[:2] for listener in listeners]

    def start_client(self):
        life = max(self.until - time.monotonic(), 0.5)
        self.made += 1
        settings = {
            "addresses": self.addresses,
            "seed": f"{self.name}/{self.made}",
            "life": life,
            "peers": self.soak.peers,
            "connections": self.soak.connections,
        }
        dies_at = None
        if self.random.random() < 0.5 and not (WINE and self.drain is None):
            dies_at = time.monotonic() + self.random.uniform(0.5, life)
        self.clients.append(Client(settings, dies_at))

    def serve(self):
        while time.monotonic() < self.until:
            self.look()
            for client in list(self.clients):
                if client.dies_at and client.dies_at <= time.monotonic() and not client.killed:
                    client.kill()
                    self.start_client()
            self.judge()
            time.sleep(0.01)

    # ---- the rules ----

    def look(self):
        stats = self.proactor.stats()
        self.soak.total["snapshots"] += 1
        if not balanced(stats):
            raise Violation(f"the statistics do not balance: {stats}")
        for row in stats.workers:
            if row.bytes_queued > row.active * QUEUED_MOST or row.buffers_used > row.active * BUFFERS_MOST:
                raise Violation(f"the server holds too much for a peer that does not read: {row}")

    def judge(self):
        for client in self.clients:
            for report in list(client.broken):
                if report["wrong_byte"] or self.closing_at is None or report["at"] < self.closing_at:
                    raise Violation(report["broken"])
            if client.ended() and not client.killed and client.process.returncode != 0:
                raise Violation(f"a client died with {client.process.returncode}")

    def let_all_leave(self, meddler):
        """No connection but those of killed clients may have failed; then nothing but counters may be left."""
        self.wait_for_clients()
        meddler.join(2 * WAIT)
        eventually(lambda: self.proactor.stats().active == 0, lambda: f"sessions remain: {self.proactor.stats()}")
        self.look()
        stats = self.proactor.stats()
        echoed = stats.bytes_sent + stats.bytes_unsent
        if stats.bytes_received != echoed:
            raise Violation(f"{stats.bytes_received} bytes received, {echoed} sent or given up: {stats}")
        if stats.accepted != stats.closed + stats.refused:
            raise Violation(f"{stats.accepted} sessions accepted, {stats.closed} ended: {stats}")
        strange = ("closed_by_us", "closed_by_timeout", "refused", "undrained", "dequeue_failures")
        if any(getattr(stats, name) for name in strange):
            raise Violation(f"this should not happen: { {name: getattr(stats, name) for name in strange} }")

    def close_proactor(self):
        self.closing_at = time.monotonic()
        self.proactor.close(self.drain or 0)

    def wait_for_clients(self):
        deadline = time.monotonic() + 2 * STUCK
        while not all(client.ended() for client in self.clients):
            self.look()
            self.judge()
            if time.monotonic() > deadline:
                raise Violation("a client hangs")
            time.sleep(0.01)
        for client in self.clients:
            client.reader.join(WAIT)
        self.judge()

    def count(self, stats):
        total = self.soak.total
        connections = 0
        for client in self.clients:
            self.soak.scripts.update(client.last["began"])
            connections += sum(client.last["began"].values())
            total["bytes checked"] += client.last["bytes"]
            total["clients"] += 1
            total["clients killed"] += client.killed
            total["connections of killed clients"] += client.last["open"] * client.killed
            total["connections ended by our close"] += len(client.broken)
        total["rounds"] += 1
        total["rounds closed under load"] += self.drain is not None
        total["connections"] += connections
        for name in ("accepted", "bytes_received", "submitted", "closed_by_peer", "closed_by_error", "closed_by_us"):
            total[f"server: {name}"] += getattr(stats, name)
        ending = "all left" if self.drain is None else f"closed under load, {self.drain} s to drain"
        self.soak.tell(
            f"round {self.name}: {stats.backend}, workers {self.workers}, {self.seconds:.0f} s, "
            f"{connections} connections, {stats.bytes_received / 1e6:.0f} MB, "
            f"{sum(client.killed for client in self.clients)} clients killed; {ending}"
        )

    # ---- foreign threads ----

    def meddle(self):
        """A thread that is no worker: listeners come and go, a native load runs, and its sessions outlive listeners."""
        try:
            with self.soak.module.Proactor(1, self.soak.backend) as client:
                while time.monotonic() < self.until and not self.over.wait(MEDDLE):
                    self.open_and_close_a_listener()
                    self.run_a_load(client)
            assert_nothing_left(client)
        except (OSError, RuntimeError, AssertionError) as error:
            if self.closing_at is None:
                self.problem = Violation(f"beside the clients: {error!r}")

    def open_and_close_a_listener(self):
        listener = self.proactor.listen(self.soak.module.ECHO)
        with socket.create_connection(listener.address, timeout=WAIT) as peer:
            for word in (b"while it listens", b"and afterwards"):
                peer.sendall(word)
                if receive_exactly(peer, len(word)) != word:
                    raise Violation("a session of a closed listener lost its echo")
                listener.close()
        self.soak.total["listeners opened and closed"] += 1

    def run_a_load(self, client):
        load = self.soak.module.Load(connections=8, messages=50, size=(1, 20_000), pipeline=4)
        load.start(client, *self.addresses[-1])
        while not load.wait(0.1):
            if self.closing_at is not None:
                return
        result = load.result()
        if result["mismatches"] or (result["errors"] and self.closing_at is None):
            self.problem = Violation(f"a native load: {result}")
        self.soak.total["echoes of native loads"] += result["echoes"]


# ---- the command line ----


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="how long, about (60)")
    parser.add_argument("--backend", help="epoll, uring, ...; else IOCPCORE_BACKEND, else the best")
    parser.add_argument("--seed", type=int, help="what to try (drawn)")
    parser.add_argument("--workers", type=int, default=2, help="of the server, at most (2)")
    parser.add_argument("--clients", type=int, default=2, help="processes (2)")
    parser.add_argument("--peers", type=int, default=40, help="connections of each client at a time (40)")
    parser.add_argument("--connections", type=int, default=100_000, help="of each client in a round, at most (100000)")
    parser.add_argument("--crowd", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args()


def print_line(report):
    print(json.dumps(report), flush=True)


def main():
    wanted = arguments()
    if wanted.crowd:
        with contextlib.suppress(BrokenPipeError):  # nobody wants to know any more
            Crowd(wanted.crowd, print_line).run()
        return 0
    seed = random.SystemRandom().randrange(1 << 32) if wanted.seed is None else wanted.seed
    soak = Soak(
        backend=wanted.backend,
        seed=seed,
        seconds=wanted.seconds,
        workers=wanted.workers,
        clients=wanted.clients,
        peers=wanted.peers,
        connections=wanted.connections,
        tell=lambda line: print(line, flush=True),
    )
    print(f"seed {seed}", flush=True)
    try:
        soak.run()
    except AssertionError as violation:
        print(f"seed {seed}: {violation}")
        return 1
    for name, number in [*soak.total.items(), *sorted(soak.scripts.items())]:
        print(f"{name:32} {number:16,}")
    print(f"seed {seed}: no rule broken")
    return 0


if __name__ == "__main__":
    sys.exit(main())
