"""Broadcast: one session's message goes to 1,000 sessions, itself included; when all have it, the next one sends.

A request is a delivery: one message has 1,000 of them.
"""
from rounds import Traffic

SESSIONS = 1000


def test_broadcast(compare):
    compare(
        Traffic(
            "broadcast",
            f"64 bytes to {SESSIONS:,} sessions",
            service="broadcast",
            mode="broadcast",
            size=64,
            connections=SESSIONS,
            requests=20,
            per="delivery",
        )
    )
