"""Certificates for tests: an authority that signs them, and files that hold them."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme


@dataclass(frozen=True)
class Pair:
    """The files of a certificate and of its key."""

    certificate: Path
    key: Path

    @property
    def options(self) -> list[str]:
        """What a command that serves is told."""
        return ["--tls-cert", str(self.certificate), "--tls-key", str(self.key)]

    @property
    def variables(self) -> dict[str, str]:
        """The same as variables, for those who connect as well."""
        return {
            "AGENT_ORCHESTRATION_TLS_CERT": str(self.certificate),
            "AGENT_ORCHESTRATION_TLS_KEY": str(self.key),
        }


class Authority:
    """Signs certificates."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._authority: Any = trustme.CA()
        self._folder = folder
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._authority.cert_pem.bytes())

    def sign(self, name: str, *hosts: str) -> Pair:
        """A fresh certificate for the hosts, in files of that name; what was in them is replaced in place."""
        signed: Any = self._authority.issue_cert(*hosts)
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        pair.certificate.write_bytes(b"".join(each.bytes() for each in signed.cert_chain_pems))
        pair.key.write_bytes(signed.private_key_pem.bytes())
        return pair

    def trusting(self, own: Pair | None = None) -> ssl.SSLContext:
        """The context of a client that trusts the authority, with a certificate of its own or without."""
        context = ssl.create_default_context(cafile=self.file)
        if own is not None:
            context.load_cert_chain(own.certificate, own.key)
        return context
