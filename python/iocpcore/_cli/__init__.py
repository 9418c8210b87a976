"""The command line, `python -m iocpcore`: one module for each command, and what they share."""
