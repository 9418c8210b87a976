"""The servers on asyncio's own loop, or on one that takes its place. Callback style: the fastest that they have."""
import asyncio
import importlib

from common import BACKLOG, BLOCK, HEADER, HOST, Requests, listening, parse_arguments


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Patient(Echo):
    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()


class TwoWrites(Echo):
    def data_received(self, data):
        self.transport.write(data[:HEADER])
        self.transport.write(data[HEADER:])


class Bulk(Echo):
    def __init__(self):
        self.requests = Requests()
        self.left = 0
        self.room = True

    def data_received(self, data):
        self.left += self.requests.add(data)
        self.answer()

    def answer(self):
        while self.left and self.room:
            self.left -= len(BLOCK)
            self.transport.write(BLOCK)

    def pause_writing(self):
        self.room = False

    def resume_writing(self):
        self.room = True
        self.answer()


class Broadcast(asyncio.Protocol):
    transports = set()

    def connection_made(self, transport):
        self.transport = transport
        self.transports.add(transport)

    def data_received(self, data):
        for each in self.transports:
            each.write(data)

    def connection_lost(self, error):
        self.transports.discard(self.transport)


PROTOCOLS = {"echo": Echo, "patient": Patient, "two-writes": TwoWrites, "bulk": Bulk, "broadcast": Broadcast}


async def serve(options):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(PROTOCOLS[options.service], HOST, options.port, backlog=BACKLOG)
    listening(options, server.sockets[0].getsockname()[1])
    await server.serve_forever()


def main():
    options = parse_arguments(__doc__, loop={"default": "asyncio", "help": "the module whose new_event_loop() is used"})
    with asyncio.Runner(loop_factory=importlib.import_module(options.loop).new_event_loop) as runner:
        runner.run(serve(options))


if __name__ == "__main__":
    main()
