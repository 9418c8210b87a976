"""What the servers in Python share: their arguments, the bytes of bulk answers, and a busy loop.

Each says `listening on HOST:PORT` first. The services:
echo        what comes goes back
two-writes  too, but as two writes: the first HEADER bytes, as a header, then the rest
bulk        each request, REQUEST bytes, says how many bytes are wanted; the answer is BLOCK over and over, written no
            faster than the peer reads it
broadcast   what comes goes to every connection
patient     as echo, with back-pressure: who does not read what comes back is not read from
"""
import argparse
import os
import socket
import threading
import time

SERVICES = ("echo", "two-writes", "bulk", "broadcast", "patient")
HOST = "127.0.0.1"
BACKLOG = 4096
HEADER = 4
REQUEST = 8
PAUSE = 0.003  # seconds before an echo that is counted
BLOCK = bytes((i * 7 + i // 256) % 256 for i in range(65536))


def parse_arguments(description, **more):
    """more: an argument's name to what argparse is told about it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, default=9999)
    parser.add_argument("--service", choices=SERVICES, default="echo")
    parser.add_argument("--busy", action="store_true", help="let lines on standard input start and end a busy loop")
    parser.add_argument("--echoes", type=int, help="be the client too, of so many echoes, and end: for bench/calls.py")
    for name, options in more.items():
        parser.add_argument(f"--{name}", **options)
    options = parser.parse_args()
    if options.busy:
        threading.Thread(target=BusyLoop().obey, daemon=True).start()
    return options


def listening(options, port):
    print(f"listening on {HOST}:{port}", flush=True)
    if options.echoes:
        threading.Thread(target=echo, args=(port, options.echoes), daemon=True).start()


def echo(port, echoes):
    """The client of so many echoes, which then ends the process. By the pause, the server waits when a message comes:
    the calls that it makes do not depend on who is faster."""
    with socket.create_connection((HOST, port)) as client:
        for number in range(echoes):
            time.sleep(PAUSE)
            message = bytes([number % 256]) + b"ourteen bytes"
            client.sendall(message)
            back = client.recv(len(message))
            assert back == message, f"{back!r} came back for {message!r}"
    print(f"echoed {echoes}", flush=True)
    os._exit(0)  # the server is not asked to end: its calls would be counted


class Answer:
    """What a connection is owed of bulk answers; written as long as there is room."""

    def __init__(self, write):
        self.write = write  # returns False, or calls pause(), when there is no more room; resume() follows
        self.rest = b""
        self.left = 0
        self.room = True

    def ask(self, data):
        """Take a piece of the stream of requests."""
        data = self.rest + data
        whole = len(data) - len(data) % REQUEST
        self.rest = data[whole:]
        self.left += sum(int.from_bytes(data[at : at + REQUEST], "big") for at in range(0, whole, REQUEST))
        self.go_on()

    def go_on(self):
        while self.left and self.room:
            self.left -= len(BLOCK)
            if self.write(BLOCK) is False:
                self.room = False

    def pause(self):
        self.room = False

    def resume(self):
        self.room = True
        self.go_on()


class BusyLoop:
    """A thread that computes in Python. A line on standard input starts it, the next one ends it, and so on."""

    def __init__(self):
        self.wanted = threading.Event()
        threading.Thread(target=self.compute, daemon=True).start()

    def obey(self):
        """Until the input ends. Without a buffer: the interpreter cannot end while a thread holds the lock of one."""
        while os.read(0, 1):
            if self.wanted.is_set():
                self.wanted.clear()
            else:
                self.wanted.set()

    def compute(self):
        number = 0
        while True:
            self.wanted.wait()
            while self.wanted.is_set():
                number = (number * 1103515245 + 12345) % 2147483648
