"""`python -m server` from a checkout."""

from ao_server.command import server

server()
