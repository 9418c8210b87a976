"""An echo server with a fault, for the test that the benchmark suite does not let it pass: lose, change, add, or end.

It serves one connection after the other, the first few hundred bytes of each without the fault.
"""
import argparse
import socket

GOOD = 500  # bytes

FAULTS = {
    "lose": lambda data: data[:-1],
    "change": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "add": lambda data: data + b"x",
    "end": lambda data: None,
}


def serve(connection, fault):
    count = 0
    while data := connection.recv(65536):
        answer = fault(data) if count <= GOOD < count + len(data) else data
        count += len(data)
        if answer is None:
            return
        connection.sendall(answer)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("fault", choices=FAULTS)
    parser.add_argument("--port", type=int)
    parser.add_argument("--service")
    options = parser.parse_args()
    with socket.create_server(("127.0.0.1", options.port)) as listening:
        print(f"listening on 127.0.0.1:{listening.getsockname()[1]}", flush=True)
        while True:
            with listening.accept()[0] as connection:
                serve(connection, FAULTS[options.fault])


if __name__ == "__main__":
    main()
