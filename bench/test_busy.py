"""Latency beside a Python busy loop: in a thread of the server's process, and in another process on the same CPU.

Both take the CPU in turns with the server; only the one inside can hold the GIL. What the second costs is what the CPU
costs; what the first costs more is what the GIL costs.
"""
import dataclasses

from rounds import Busy


def beside_a_busy_loop(server):
    """The server as two: raw C has no Python inside, and is measured with the other process alone."""
    name = f"{server.name}, loop outside"
    outside = dataclasses.replace(server, name=name, hog="outside", base="c-epoll, loop outside")
    if server.module is None:
        return [outside]
    return [outside, dataclasses.replace(server, hog="inside", base=name)]


def test_a_busy_loop(compare, chosen_servers):
    busy = Busy("busy", "busy loop, 1,000 echoes a second", mode="paced", rate=1000, requests=500, full_times=5)
    compare(busy, [row for server in chosen_servers for row in beside_a_busy_loop(server)])
