"""A page in a real browser hears of a commit through ``EventSource``, also after a restart of the worker."""

from __future__ import annotations

import http.server
import queue
import subprocess
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.browser import browser_command
from tests.notify.real import FQRN, need, running_gateway

_PAGE = """<!doctype html><title>revisions</title><script>
const stream = new EventSource("%s/notifications/subscribe?repository=%s");
stream.onmessage = event => {
  const manifest = atob(JSON.parse(event.data).manifest);
  fetch("/heard?revision=" + manifest.match(/^S(\\d+)$/m)[1] + "&id=" + event.lastEventId);
};
</script>"""


class Site:
    """Serves the page and hears what it has heard."""

    def __init__(self, page: str) -> None:
        self.heard: queue.Queue[int] = queue.Queue()
        heard = self.heard

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                if url.path == "/heard":
                    heard.put(int(parse_qs(url.query)["revision"][0]))
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(page.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def test_event_source(tmp_path: Path) -> None:
    command = browser_command(tmp_path / "browser", "--remote-debugging-port=0")
    need()
    with running_gateway(tmp_path) as (gateway, stack):
        site = Site(_PAGE % (gateway.url, FQRN))
        stack.callback(site.close)
        process = subprocess.Popen([*command, site.url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.kill)
        assert site.heard.get(timeout=60) == 1
        for kill in (False, True):
            revision = gateway.publish()
            assert site.heard.get(timeout=10) == revision
            gateway.restart_worker(kill=kill)
        revision = gateway.publish()
        assert site.heard.get(timeout=20) == revision
