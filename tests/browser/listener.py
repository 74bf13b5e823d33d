"""The page that runs the snippet, and the ears that hear what it logs: a small server on loopback."""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.e2e.processes import wait_until

# The page's own script: whatever is logged is told to the listener, in order.
TELLING = """
let telling = Promise.resolve();
console.log = (...words) => {
  const body = JSON.stringify(words);
  telling = telling.then(() => fetch('HEARD', {method: 'POST', body}));
};
"""


@dataclass
class Listener:
    """What was logged so far, each line as its words."""

    url: str
    page: str
    heard: list[list[Any]] = field(default_factory=list[list[Any]])

    def wait_for(self, words: str, timeout: float) -> dict[str, Any]:
        """The payload of the first line that begins with the words."""
        wait_until(lambda: bool(self._payloads(words)), timeout, f"{words!r} was not logged, but {self.heard}")
        return self._payloads(words)[0]

    def _payloads(self, words: str) -> list[dict[str, Any]]:
        return [line[1] for line in list(self.heard) if line[0] == words]


@contextmanager
def listening(snippet: str) -> Generator[Listener]:
    """Serves the page with the snippet, and listens."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(listener.page.encode() if self.path == "/" else b"")

        def do_POST(self) -> None:
            listener.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer(b"")

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _answer(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_port}/"
        page = f"<!doctype html><title>snippet</title><script>{script(snippet, url)}</script>"
        listener = Listener(url, page)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield listener
        finally:
            server.shutdown()
            thread.join()


def script(snippet: str, url: str) -> str:
    """The snippet, told on."""
    return TELLING.replace("HEARD", url) + snippet
