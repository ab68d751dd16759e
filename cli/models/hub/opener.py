"""How addresses are opened: over HTTP and HTTPS alone, with the certificates that are there, and safe redirects."""

import os
import ssl
from http.client import HTTPMessage, HTTPResponse
from importlib.util import find_spec
from typing import IO
from urllib.parse import urljoin, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from mistral_mlx.errors import ConversionError, shown

DOWN = ("https", "http")  # encryption would end

Origin = tuple[str, str | None, int | None]


def make_opener(endpoint: str, token: str | None) -> OpenerDirector:
    """Return what opens addresses; after a redirect `token` goes to the `endpoint` alone."""
    opener = OpenerDirector()
    https = HTTPSHandler(context=tls_context())
    for handler in (ProxyHandler(), HTTPHandler(), https, HTTPDefaultErrorHandler(), HTTPErrorProcessor()):
        opener.add_handler(handler)
    opener.add_handler(_Redirects(endpoint, token))
    return opener


def origin(url: str) -> Origin:
    """Return scheme, host and port of an address. Raises ValueError if it is none."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def tls_context() -> ssl.SSLContext:
    """Return a context with the system's certificates, or those of certifi where Python knows none."""
    paths = ssl.get_default_verify_paths()
    context = ssl.create_default_context()
    has_own = paths.cafile or (paths.capath and os.listdir(paths.capath))
    if not has_own and find_spec("certifi"):  # a Python of python.org on macOS
        import certifi

        context.load_verify_locations(certifi.where())
    return context


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to http and https; none leads from https to http."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        self._endpoint, self._token = endpoint, token

    def http_error_302(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> HTTPResponse | None:
        """Follow a redirect to http or https; urllib would read all of its body first."""
        fp.close()
        old, new = req.full_url, urljoin(req.full_url, headers.get("location") or "")
        if urlsplit(new).scheme not in ("http", "https") or (urlsplit(old).scheme, urlsplit(new).scheme) == DOWN:
            raise ConversionError(f"the hub redirects to {shown(new, limit=160)}, which is not safe")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and self._token and origin(newurl) == origin(self._endpoint):
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        return request
