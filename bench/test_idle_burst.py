"""Idle, then a burst: 500 connections are silent for so long that servers give back what a busy one needs; then each
sends 16 messages at once."""
from rounds import Traffic

IDLE = 7.0  # seconds: more than an iocpcore session keeps its receive buffer
CONNECTIONS, MESSAGES = 500, 16


def test_a_burst_after_idling(compare):
    compare(
        Traffic(
            "idle-burst",
            f"{MESSAGES} x {CONNECTIONS} after {IDLE:g} s idle",
            connections=CONNECTIONS,
            pipeline=MESSAGES,
            requests=CONNECTIONS * MESSAGES,
            idle=IDLE,
        )
    )
