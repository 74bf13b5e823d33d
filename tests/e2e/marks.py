"""Secrets that can be found again: each is made with a mark, and every output is searched for all of them."""

import base64
from dataclasses import dataclass, field
from typing import Any

import httpx2

MARK = "MaRkEd"


@dataclass
class Marks:
    """Secrets that were made or got, and what was told since."""

    # By what they are.
    secrets: dict[str, str] = field(default_factory=dict[str, str])
    # Texts by where they came from.
    told: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def new(self, what: str, prefix: str = "") -> str:
        """A secret of the test's own making."""
        assert what not in self.secrets, what
        self.secrets[what] = f"{MARK}{len(self.secrets):03}{''.join(filter(str.isalnum, what))}"
        return prefix + self.secrets[what]

    def got(self, what: str, secret: str) -> str:
        """A secret that the control plane made."""
        self.secrets[what] = secret
        return secret

    def basic(self, what: str, user: str, secret: str | None = None) -> str:
        """The header of HTTP Basic with a secret: it may come to light as it was written as well."""
        pair = f"{user}:{secret or self.new(what)}".encode()
        self.secrets[f"{what}, encoded"] = base64.b64encode(pair).decode()
        return f"Basic {self.secrets[f'{what}, encoded']}"

    def hear(self, where: str, *texts: Any) -> None:
        """Takes what was told."""
        self.told += [(where, text if isinstance(text, str) else repr(text)) for text in texts]

    def answer(self, answer: httpx2.Response) -> httpx2.Response:
        """Takes an answer with its headers."""
        self.hear(f"{answer.status_code}", str(answer.headers.multi_items()), answer.text)
        return answer

    def found(self) -> list[tuple[str, str, str]]:
        """What came to light: what it is, where, and what is around it."""
        return [
            (what, where, text[max(0, text.index(secret) - 120) : text.index(secret) + 80])
            for where, text in self.told
            for what, secret in self.secrets.items()
            if secret in text
        ]
