"""The command line, `python -m iocpcore`: one module for each command, and the code they share."""
