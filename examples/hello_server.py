import iocpcore


class Echo:
    def on_receive(self, session: iocpcore.Session, data: bytes) -> None:
        if not session.send(data):  # the peer does not read: stop reading from it
            session.pause()

    def on_drain(self, session: iocpcore.Session) -> None:
        session.resume()


iocpcore.serve(Echo(), port=9999, started=print)  # until Ctrl+C
