"""`python -m ao_gateway`."""

from ao_gateway.command import gateway

gateway(prog_name="ao gateway")
