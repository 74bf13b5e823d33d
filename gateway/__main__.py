"""`python -m gateway` from a checkout."""

from ao_gateway.command import gateway

gateway()
