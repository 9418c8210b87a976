"""The servers on asyncio's own loop, or on one that takes its place. Callback style: the fastest that they have."""
import asyncio
import importlib

from common import BACKLOG, HEADER, HOST, Answer, listening, parse_arguments


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
    def connection_made(self, transport):
        self.answer = Answer(transport.write)

    def data_received(self, data):
        self.answer.ask(data)

    def pause_writing(self):
        self.answer.pause()

    def resume_writing(self):
        self.answer.resume()


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
