"""The servers on Twisted, on the reactor that is named."""
import importlib

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from common import BACKLOG, HEADER, HOST, Answer, listening, parse_arguments


class Echo(Protocol):
    def connectionMade(self):
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data):
        self.transport.write(data)


class TwoWrites(Echo):
    def dataReceived(self, data):
        self.transport.write(data[:HEADER])
        self.transport.write(data[HEADER:])


@implementer(IPushProducer)
class Bulk(Echo):
    def connectionMade(self):
        super().connectionMade()
        self.answer = Answer(self.transport.write)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data):
        self.answer.ask(data)

    def pauseProducing(self):
        self.answer.pause()

    def resumeProducing(self):
        self.answer.resume()

    def stopProducing(self):
        self.answer.left = 0

    def connectionLost(self, reason):
        self.transport.unregisterProducer()


class Broadcast(Echo):
    transports = set()

    def connectionMade(self):
        super().connectionMade()
        self.transports.add(self.transport)

    def dataReceived(self, data):
        for each in self.transports:
            each.write(data)

    def connectionLost(self, reason):
        self.transports.discard(self.transport)


PROTOCOLS = {"echo": Echo, "two-writes": TwoWrites, "bulk": Bulk, "broadcast": Broadcast}


def main():
    options = parse_arguments(__doc__, reactor={"default": "epollreactor"})
    importlib.import_module(f"twisted.internet.{options.reactor}").install()
    from twisted.internet import reactor  # not before: importing it would install another one

    factory = Factory.forProtocol(PROTOCOLS[options.service])
    factory.noisy = False
    port = reactor.listenTCP(options.port, factory, backlog=BACKLOG, interface=HOST)
    listening(options, port.getHost().port)
    reactor.run()


if __name__ == "__main__":
    main()
