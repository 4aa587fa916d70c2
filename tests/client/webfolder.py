"""A web server that knows nothing of repositories, such as those that have external files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


@contextmanager
def served(folder: Path, *, ranges: bool = True) -> Iterator[str]:
    """The files in *folder* over HTTP; gives the URL. Without *ranges*, always all of a file."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                data = (folder / unquote(self.path)[1:]).read_bytes()
            except OSError:
                self.send_error(404)
                return
            wanted = self.headers.get("Range", "").removeprefix("bytes=").partition("-") if ranges else ("", "", "")
            if wanted[0]:
                data = data[int(wanted[0]) : int(wanted[2]) + 1]
            self.send_response(206 if wanted[0] else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{web.server_port}"
        finally:
            web.shutdown()
            thread.join()
