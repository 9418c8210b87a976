"""Connection churn: connect, one echo, the client's end, the server's end; 50 connections at a time."""
from rounds import Traffic


def test_churn(compare):
    # Not more in a round: a port of the client's is not used again for a while.
    compare(Traffic("churn", "connect, echo, close", mode="churn", requests=2000, per="connection"))
