"""A game server with a loop of its own: 20 ticks a second, and between them the network. No threads, no locks.

    python examples/tick_loop.py --port 9999
    nc 127.0.0.1 9999           # + and - move you; each tick brings a line with everybody's place
"""

import argparse
import contextlib
import json
import time
from dataclasses import dataclass

import iocpcore

TICK = 1 / 20  # seconds


@dataclass
class Player:
    place: int = 0
    behind: bool = False  # reads more slowly than the game runs


class Game:
    def __init__(self) -> None:
        self.players: dict[iocpcore.Session, Player] = {}
        self.ticks = 0

    # poll() calls these, so they run in the game's own thread.

    def on_connect(self, session: iocpcore.Session) -> None:
        self.players[session] = Player()

    def on_receive(self, session: iocpcore.Session, data: bytes) -> None:
        self.players[session].place += data.count(b"+") - data.count(b"-")

    def on_drain(self, session: iocpcore.Session) -> None:
        self.players[session].behind = False

    def on_close(self, session: iocpcore.Session, error: OSError | None) -> None:
        del self.players[session]

    # The game.

    def tick(self) -> None:
        self.ticks += 1
        places = {session.id: player.place for session, player in self.players.items()}
        snapshot = json.dumps({"tick": self.ticks, "places": places}).encode() + b"\n"
        for session, player in self.players.items():
            # Old snapshots are worthless: a player that is behind gets none until its queue has drained.
            if not player.behind:
                with contextlib.suppress(iocpcore.SessionClosed):  # its on_close is still to come
                    player.behind = not session.send(snapshot)


def run(proactor: iocpcore.Proactor, game: Game) -> None:
    due = time.monotonic() + TICK
    while True:
        # At least once a tick, even if the game is late; and again until the tick is due.
        proactor.poll(max(0.0, due - time.monotonic()))
        now = time.monotonic()
        if now >= due:
            game.tick()
            due = max(due + TICK, now)  # skip ticks that were missed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A game server with a loop of its own.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9999)
    options = parser.parse_args()
    game = Game()
    with iocpcore.Proactor(workers=0) as proactor, contextlib.suppress(KeyboardInterrupt):
        listener = proactor.listen(game, options.host, options.port)
        host, port = listener.address[:2]
        print(f"listening on {host}:{port}", flush=True)
        run(proactor, game)
