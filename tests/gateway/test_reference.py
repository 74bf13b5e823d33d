"""The page at /docs: it tells of everything, and needs nothing from anywhere."""

import re
from html.parser import HTMLParser

import httpx2

from ao_gateway import bindings, openapi, reference_page
from ao_gateway.app import FILES
from tests.gateway.conftest import Running

DOCUMENT = openapi.document(bindings.read(FILES))
PAGE = reference_page.page(DOCUMENT)


class Parts(HTMLParser):
    """What a page is made of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: set[str] = set()
        self.others: set[str] = set()
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in ("meta", "link", "wbr"):
            self._open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name == "href":
                self.links.add(value or "")
            elif name in ("src", "srcset", "style", "action", "data") or name.startswith("on"):
                self.others.add(name)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def test_it_names_every_operation_and_every_link_leads_somewhere() -> None:
    parts = Parts(PAGE)
    operations = {each["operationId"] for methods in DOCUMENT["paths"].values() for each in methods.values()}
    assert operations <= set(parts.ids)
    assert len(set(parts.ids)) == len(parts.ids)
    assert {link[1:] for link in parts.links if link.startswith("#")} <= set(parts.ids)


def test_it_fetches_nothing_and_runs_nothing() -> None:
    parts = Parts(PAGE)
    assert {link for link in parts.links if not link.startswith("#")} == {"/v1/openapi.json", "data:,"}
    assert not parts.others
    assert not parts.tags & {"script", "img", "iframe", "object", "embed", "form", "base"}
    assert "url(" not in PAGE
    assert "@import" not in PAGE


async def test_it_is_served_to_anybody_with_a_strict_policy(running: Running) -> None:
    async with httpx2.AsyncClient(base_url=running.url.removesuffix("/v1"), trust_env=False) as stranger:
        page = await stranger.get("/docs")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert (await stranger.delete("/docs")).status_code == 405
        assert f"curl {running.url}/agents" in page.text
        odd = await stranger.get("/docs", headers={"Host": '"><script>'})
        assert "<script>" not in odd.text
        assert re.findall("curl (http://[^/]*)/v1/agents ", odd.text)[0] == reference_page.ORIGIN
