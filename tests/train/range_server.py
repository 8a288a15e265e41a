"""A small web server that answers ranges of files, as object stores do. For tests of remote reading."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The URL of a folder on this machine, and the requests it got: ``path range``."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, wanted = folder / self.path.lstrip("/"), self.headers.get("Range", "")
            asked.append(f"{self.path} {wanted}")
            data = path.read_bytes() if path.is_file() else b""
            if not path.is_file():
                self.send_response(404)
            elif wanted:
                first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted).groups()
                size, data = len(data), data[int(first) : int(last or len(data)) + 1]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{int(first) + len(data) - 1}/{size}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments) -> None:
            """Nothing on the screen."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
