"""A hub on this machine that holds data sets: the few answers that `datasets` needs to stream them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

Files = Mapping[str, bytes]
"""Path in a repository -> content."""


@contextmanager
def serve(repositories: Mapping[str, Mapping[str, Files]]) -> Iterator[str]:
    """The address of a hub with repositories: name -> revision -> files."""
    handler = type("Handler", (_Handler,), {"repositories": repositories})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    repositories: Mapping[str, Mapping[str, Files]]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        for name, revisions in self.repositories.items():
            if path.startswith(f"/datasets/{name}/resolve/"):
                revision, _, file = path.removeprefix(f"/datasets/{name}/resolve/").partition("/")
                return self._send_file(self._find(revisions, revision), file, _digest(revision.encode()))
            if path == f"/api/datasets/{name}" or path.startswith(f"/api/datasets/{name}/"):
                return self._send_about(name, revisions, path.removeprefix(f"/api/datasets/{name}"))
        return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def do_POST(self):
        sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = json.loads(sent)["paths"] if sent.startswith("{") else parse_qs(sent).get("paths", [])
        path = unquote(urlsplit(self.path).path)
        for name, revisions in self.repositories.items():
            start = f"/api/datasets/{name}/paths-info/"
            if path.startswith(start):
                files = self._find(revisions, path.removeprefix(start))
                return self._send_json([one for one in _list_tree(files or {}) if one["path"] in asked])
        return self._send(404, b"", {})

    def _find(self, revisions, revision):
        return next((files for name, files in revisions.items() if revision in (name, _digest(name.encode()))), None)

    def _send_about(self, name, revisions, rest):
        kind, _, revision = rest.strip("/").partition("/")
        if kind == "tree":
            revision, _, folder = revision.partition("/")
        files = self._find(revisions, revision or "main")
        if files is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if kind == "tree":
            return self._send_json([one for one in _list_tree(files) if one["path"].startswith(folder)])
        if kind in ("", "revision"):
            siblings = [{"rfilename": path} for path in files]
            commit = next(_digest(each.encode()) for each in revisions if revisions[each] is files)
            return self._send_json({"id": name, "sha": commit, "siblings": siblings, "private": False})
        return self._send(404, b"", {})

    def _send_file(self, files, name, commit):
        if files is None or name not in files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound" if files else "RevisionNotFound"})
        content, headers = files[name], {"ETag": f'"{_digest(files[name])}"', "X-Repo-Commit": commit}
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        piece = content[int(first) : int(last) + 1 if last else None]
        if "Range" not in self.headers:
            return self._send(200, content, headers)
        span = f"bytes {first}-{int(first) + len(piece) - 1}/{len(content)}"
        return self._send(206, piece, {**headers, "Content-Range": span})

    def _send_json(self, value):
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status, content, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _list_tree(files: Files) -> list[dict[str, object]]:
    folders = {str(path.rpartition("/")[0]) for path in files if "/" in path}
    return [
        *({"type": "directory", "path": folder, "oid": "d" * 40, "size": 0} for folder in sorted(folders)),
        *({"type": "file", "path": path, "oid": _digest(data), "size": len(data)} for path, data in files.items()),
    ]
