import iocpcore


class Hello:
    def on_connect(self, session: iocpcore.Session) -> None:
        session.send(b"Hello, IOCP!\n")
        session.end()

    def on_receive(self, session: iocpcore.Session, data: bytes) -> None:
        print(data.decode(), end="")

    def on_close(self, session: iocpcore.Session, error: OSError | None) -> None:
        raise SystemExit(error)  # ends run(), and the program


proactor = iocpcore.Proactor()
proactor.connect(Hello(), "127.0.0.1", 9999)
iocpcore.run(proactor)
