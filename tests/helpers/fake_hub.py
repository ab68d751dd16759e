"""A hub on this machine: the pages and files of models, and the faults of a network."""

import hashlib
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

LFS_FROM = 20_000  # bytes; smaller files are named by Git's hash, as on the real hub
PAGE = 5  # entries of a page of a tree


class Asked(NamedTuple):
    """A request that arrived."""

    path: str
    token: str | None
    range: str | None


@dataclass
class FakeHub:
    """What a hub serves, and how badly. Faults hold until they are changed, those in lists for one request each."""

    models: dict[str, dict[str, bytes]] = field(default_factory=dict)  # ORG/REPO: files by name
    page: dict[str, object] = field(default_factory=lambda: {"cardData": {"license": "apache-2.0"}, "gated": False})
    token: str | None = None  # that is needed
    has_ranges: bool = True
    refusals: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)  # part of a path, status, headers
    cuts: list[int] = field(default_factory=list)  # bytes of a body of weights before the connection is cut
    damaged: set[str] = field(default_factory=set)  # names of files that arrive with other bytes
    elsewhere: str | None = None  # the address of the server that has the files
    pause_s: float = 0.0  # between two pieces of a body
    silence_s: float = 0.0  # before an answer
    gate: threading.Event = field(default_factory=threading.Event)  # weights wait for it
    more: dict[str, bytes] = field(default_factory=dict)  # what a file has beyond what its tree says
    off_by: int = 0  # bytes between what is asked for and what is sent
    next_page: str = ""  # the address of the next page, of "{path}" and "{n}"
    more_entries: list[object] = field(default_factory=list)  # of every tree
    asked: list[Asked] = field(default_factory=list)
    address: str = ""

    def commit(self, name: str) -> str:
        """Return the commit of a model: it changes with its files."""
        files = self.models[name]
        return hashlib.sha1(b"".join(n.encode() + files[n] for n in sorted(files))).hexdigest()

    def entry(self, name: str, data: bytes) -> dict[str, object]:
        """Return a file as a tree lists it."""
        found = {
            "type": "file",
            "path": name,
            "size": len(data),
            "oid": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
        }
        if len(data) >= LFS_FROM:
            found["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return found


@contextmanager
def fake_hub(**given):
    """Serve a FakeHub with these values; yield it."""
    hub = FakeHub(**given)
    hub.gate.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            _answer(hub, self)

        def do_HEAD(self):
            _answer(hub, self)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # a client that has gone
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(hub, handler):
    path = handler.path.partition("?")[0]
    hub.asked.append(Asked(handler.path, handler.headers.get("Authorization"), handler.headers.get("Range")))
    time.sleep(hub.silence_s)
    for refusal in hub.refusals:
        part, code, headers = refusal
        if part in handler.path:
            hub.refusals.remove(refusal)
            return _send(handler, code, b"{}", headers)
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 6 and "/".join(parts[2:4]) in hub.models:
        return _send_page(hub, handler, "/".join(parts[2:4]), parts[4], "/".join(parts[5:]))
    name, file = "/".join(parts[:2]), parts[-1]
    if len(parts) == 5 and parts[2] == "resolve" and file in hub.models.get(name, {}):
        if hub.token and handler.headers.get("Authorization") != f"Bearer {hub.token}":
            return _send(handler, 401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        if hub.elsewhere:
            return _send(handler, 302, b"", {"Location": hub.elsewhere + handler.path})
        return _send_file(hub, handler, name, file)
    return _send(handler, 404, b"", {"X-Error-Code": "EntryNotFound" if name in hub.models else "RepoNotFound"})


def _send_page(hub, handler, name, kind, revision):
    commit = hub.commit(name)
    if revision not in ("main", commit):
        return _send(handler, 404, b"", {"X-Error-Code": "RevisionNotFound"})
    if kind == "revision":
        return _send(handler, 200, json.dumps({"id": name, "sha": commit, **hub.page}).encode(), {})
    entries = [hub.entry(*item) for item in sorted(hub.models[name].items())] + [
        {"type": "directory", "path": "docs", "oid": "0" * 40}
    ]
    entries += hub.more_entries
    start = int(handler.path.partition("cursor=")[2] or 0)
    path, n = handler.path.partition("?")[0], start + PAGE
    address = hub.next_page.format(path=path, n=n) if hub.next_page else f"{hub.address}{path}?cursor={n}"
    more = {"Link": f'<{address}>; rel="next"'}
    headers = more if start + PAGE < len(entries) else {}
    return _send(handler, 200, json.dumps(entries[start : start + PAGE]).encode(), headers)


def _send_file(hub, handler, model, name):
    data, start = hub.models[model][name], 0
    entry, data = hub.entry(name, data), data + hub.more.get(name, b"")
    total = len(data)
    if name in hub.damaged:
        data = bytes(len(data))
    asked = handler.headers.get("Range")
    if asked and hub.has_ranges:
        start = int(asked.removeprefix("bytes=").partition("-")[0])
        if start >= total:
            return _send(handler, 416, b"", {"Content-Range": f"bytes */{total}"})
        start += hub.off_by
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
    handler.send_header("Content-Length", str(total - start))
    handler.send_header("ETag", f'"{entry.get("lfs", entry)["oid"]}"')
    handler.send_header("X-Repo-Commit", hub.commit(model))
    handler.end_headers()
    if handler.command == "HEAD":
        return None
    end = start + hub.cuts.pop(0) if hub.cuts and name.endswith(".safetensors") else total
    if name.endswith(".safetensors"):
        hub.gate.wait()
    for at in range(start, min(end, total), 8192):
        handler.wfile.write(data[at : min(at + 8192, end)])
        if hub.pause_s:
            time.sleep(hub.pause_s)
    if end < total:
        handler.close_connection = True
    return None


def _send(handler, code, body, headers):
    handler.send_response(code)
    for key, value in headers.items():
        handler.send_header(key, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
