"""Downloads a file from the package index without pip, which an environment of uv does not have. A hash names the file.

The simple API of PEP 503 (HTML) and PEP 691 (JSON). The index is that of PIP_INDEX_URL, UV_DEFAULT_INDEX or
UV_INDEX_URL; urllib obeys the variables for proxies. A password in the address goes to that host alone, when it asks.
"""

import errno
import hashlib
import json
import os
import re
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit
from urllib.request import (
    HTTPBasicAuthHandler,
    HTTPPasswordMgrWithDefaultRealm,
    HTTPSHandler,
    OpenerDirector,
    Request,
    build_opener,
)

from mistral_mlx.errors import ConversionError, shown
from mistral_mlx.progress import Progress

from .hub.opener import tls_context

INDEXES = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
PYPI = "https://pypi.org/simple"
ACCEPTED = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
TIMEOUT_S = 30
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
MAX_PAGE_BYTES, MAX_FILE_BYTES, PART_BYTES = 1 << 24, 1 << 28, 1 << 20


def fetch(project: str, sha256: str, target: Path, progress: Progress) -> None:
    """Write the file of `project` with this hash to `target`.

    Raises ConversionError if the index cannot be reached, does not have it, or sends something else.
    """
    index = next((os.environ[name] for name in INDEXES if os.environ.get(name)), PYPI)
    try:
        page, opener = _without_password(f"{index.rstrip('/')}/{project}/")
        url = _file_with(sha256, opener, page)
        found = _download(opener, url, target, progress)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:  # a page can be anything
        if isinstance(error, OSError) and error.errno in OF_THE_DISK:
            raise
        raise ConversionError(
            f"the package index cannot be read ({shown(str(error), limit=160)}); check the connection, or set "
            f"{INDEXES[0]}, and try again"
        ) from error
    if found != sha256:
        raise ConversionError(f"the package index sent another file: its SHA-256 is {found}, not {sha256}")


def _without_password(url: str) -> tuple[str, OpenerDirector]:
    """Return the address without user and password, and what opens it and knows them."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url} is no address of an index")
    passwords = HTTPPasswordMgrWithDefaultRealm()
    plain = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if parts.username:
        passwords.add_password(None, urljoin(plain, "/"), unquote(parts.username), unquote(parts.password or ""))
    return plain, build_opener(HTTPBasicAuthHandler(passwords), HTTPSHandler(context=tls_context()))


def _file_with(sha256: str, opener: OpenerDirector, page: str) -> str:
    """Return the address of the file with this hash. Raises ValueError if the page does not have it."""
    with opener.open(Request(page, headers={"Accept": ACCEPTED}), timeout=TIMEOUT_S) as answer:
        text = answer.read(MAX_PAGE_BYTES).decode("utf-8", "replace")
        page = answer.url
    if text.lstrip().startswith("{"):
        files = [(str(file["url"]), file["hashes"].get("sha256")) for file in json.loads(text)["files"]]
    else:
        files = re.findall(r"""href=["']([^"'#]+)#sha256=([0-9a-f]{64})""", text)
    urls = [urljoin(page, unescape(url)) for url, digest in files if digest == sha256]
    if not urls or urlsplit(urls[0]).scheme not in ("http", "https"):
        raise ValueError(f"{page} has no file with the SHA-256 {sha256[:12]}…")
    return urls[0]


def _download(opener: OpenerDirector, url: str, target: Path, progress: Progress) -> str:
    """Write the file to `target`, and return its SHA-256."""
    digest, n = hashlib.sha256(), 0
    with opener.open(url, timeout=TIMEOUT_S) as answer, target.open("wb") as file:
        total = int(answer.headers.get("Content-Length") or MAX_FILE_BYTES)
        while part := answer.read(PART_BYTES):
            n += len(part)
            if n > MAX_FILE_BYTES:
                raise ValueError(f"{url} has more than {MAX_FILE_BYTES:,} bytes")
            digest.update(part)
            file.write(part)
            progress("fetching", min(n, total), total)
    return digest.hexdigest()
