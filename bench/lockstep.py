"""Echoes one at a time, server and client in one process: gate.py counts the calls they make under wine.

lockstep.py native|python COUNT; a last line says that every byte has come back. lockstep.py relay NAMES tells wine's
debugger which calls it shall print, in every process that starts later.
"""
import socket
import sys

import iocpcore

MESSAGE = b"fourteen bytes"
WAIT = 60.0  # seconds after which an echo has failed


class Echo:
    def on_receive(self, session, data):
        session.send(data)


def echo(kind, count):
    """All in one thread: whether a receive finds its bytes there, and needs no packet, must not be left to chance."""
    with iocpcore.Proactor(0) as proactor:
        listener = proactor.listen(iocpcore.ECHO if kind == "native" else Echo(), "127.0.0.1")
        with socket.create_connection(("127.0.0.1", listener.port)) as peer:
            while not proactor.stats().active:
                proactor.poll(0.01)
            for _ in range(count):
                peer.sendall(MESSAGE)
                packets = proactor.poll(WAIT)
                assert packets == 1, f"{packets} packets of one message"
                assert peer.recv(len(MESSAGE)) == MESSAGE
    print(f"\nechoed {count}", flush=True)


def relay(names):
    import winreg

    with winreg.CreateKey(winreg.HKEY_CURRENT_USER, r"Software\Wine\Debug") as key:
        winreg.SetValueEx(key, "RelayInclude", 0, winreg.REG_SZ, names)


if __name__ == "__main__":
    if sys.argv[1] == "relay":
        relay(sys.argv[2])
    else:
        echo(sys.argv[1], int(sys.argv[2]))
