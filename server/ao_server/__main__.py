"""`python -m ao_server`."""

from ao_server.command import server

server()
