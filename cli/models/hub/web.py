"""Asks a hub over HTTP: follows redirects, waits when it is asked to, and says in one line why an answer is none.

The user's token goes to the hub's own address alone, never to the host that a redirect names. urllib obeys the
variables for proxies.
"""

import json
import re
import ssl
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage, HTTPResponse
from importlib.util import find_spec
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, Request, build_opener

from mistral_mlx.errors import ConversionError, shown
from mistral_mlx.version import __version__

TIMEOUT_S = 30  # without a byte
MAX_ANSWER_BYTES = 1 << 26
MAX_WAIT_S = 300  # that a hub may ask for before we give up
BUSY = (408, 429, 500, 502, 503, 504)
N_TRIES = 5
LOST = (URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError)  # a connection that failed
MODEL = re.compile(r"([^/]+/[^/]+)/(?:resolve|revision|tree)/")
NEXT_PAGE = re.compile(r'<([^>]+)>;\s*rel="next"')


class Web:
    """Opens the addresses of one hub. `say` is told when it has to wait."""

    def __init__(self, endpoint: str, token: str | None, say: Callable[[str], None]) -> None:
        self.endpoint, self._token, self._say = endpoint, token, say
        self._opener = _opener(endpoint, token)

    def pages(self, path: str) -> list[object]:
        """Return the JSON of `path` below the endpoint, and of the pages that follow it."""
        url: str | None = f"{self.endpoint}/{path}"
        found: list[object] = []
        while url is not None:
            try:
                with self.open(url) as answer:
                    text = answer.read(MAX_ANSWER_BYTES + 1)
                    following = NEXT_PAGE.search(answer.headers.get("Link") or "")
            except LOST as error:
                raise ConversionError(self.unreachable(error)) from error
            if len(text) > MAX_ANSWER_BYTES or len(found) > 1000:
                raise ConversionError(f"{shown(url, limit=200)} sends more than is plausible; it is no model's page")
            found.append(_parsed(text, url))
            url = following[1] if following and _origin(following[1]) == _origin(self.endpoint) else None
        return found

    def open(self, url: str, start: int = 0) -> HTTPResponse:
        """Return the answer for `url`, from its byte `start` on if the server can do that.

        A busy hub and a failed connection are asked again. Raises ConversionError with what to do.
        """
        for n in range(1, N_TRIES + 1):
            try:
                return self._answer(url, start)
            except HTTPError as error:
                with error:
                    wait = _wait(error, n)
                    if error.code not in BUSY or n == N_TRIES or wait > MAX_WAIT_S:
                        raise ConversionError(self._refused(error, url, wait)) from error
                    self.wait(wait, f"the hub is busy ({error.code} {error.reason})")
            except LOST as error:
                if n == N_TRIES:
                    raise ConversionError(self.unreachable(error)) from error
                self.wait(pause(n), f"the hub does not answer ({_reason(error)})")
            except ValueError as error:  # of urllib, for what is no address
                raise ConversionError(f"the hub redirects to what is no address ({shown(str(error))})") from error
        raise AssertionError("the last try returns or raises")

    def wait(self, seconds: float, why: str) -> None:
        """Say why nothing happens, and wait."""
        if seconds >= 1:
            self._say(f"{why}; trying again in {seconds:.0f} s")
        time.sleep(seconds)

    def unreachable(self, error: Exception) -> str:
        """Return the message for a hub that does not answer."""
        return (
            f"{shown(urlsplit(self.endpoint).netloc)} cannot be reached ({shown(_reason(error), limit=160)}); "
            "check the connection, the proxy and HF_ENDPOINT, and try again"
        )

    def _answer(self, url: str, start: int) -> HTTPResponse:
        request = Request(url, headers={"User-Agent": f"mistral-mlx/{__version__}"})
        if start:
            request.add_header("Range", f"bytes={start}-")
        if self._token and _origin(url) == _origin(self.endpoint):
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        answer: HTTPResponse = self._opener.open(request, timeout=TIMEOUT_S)
        return answer

    def _refused(self, error: HTTPError, url: str, wait: float) -> str:
        """Return the message for an answer that is an error; the codes are those of the hub's API."""
        code = error.headers.get("X-Error-Code") or ""
        said = f"{error.code} {shown(error.headers.get('X-Error-Message') or error.reason, limit=160)}"
        name = MODEL.search(url)
        page = f"{self.endpoint}/{name[1]}" if name else self.endpoint
        if code == "GatedRepo":
            return f"the model is gated; accept its terms at {page}, then set HF_TOKEN to a token of that account"
        if code == "RevisionNotFound":
            return f"the model has no such revision; {page} lists its branches, tags and commits"
        if code == "EntryNotFound":
            return f"a file has gone from {page} ({said}); try again"
        if code == "RepoNotFound" or error.code in (401, 404):
            token = ", and that the token may read it" if self._token else ", or set HF_TOKEN"
            return f"there is no such model at {page}, or it is private ({said}); check the name{token}"
        if error.code == 403:
            return f"{page} may not be read ({said}); set HF_TOKEN to a token that has the right to"
        if error.code == 429:
            return f"the hub asks to wait {wait:.0f} s ({said}); try again later, or set HF_TOKEN for a higher limit"
        return f"the hub answers {said}; try again later"


class _Redirects(HTTPRedirectHandler):
    """Follows a redirect; the token goes along only to the hub itself, and nothing goes from https to http."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        self._endpoint, self._token = endpoint, token

    def http_error_302(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> HTTPResponse | None:
        """Follow the redirect; urllib leaves the connection open if it names no address."""
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except (ValueError, ConversionError):
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if (old.scheme, new.scheme) == ("https", "http"):
            raise ConversionError(
                f"the hub redirects to {shown(newurl, limit=160)}, which is not safe; nothing is fetched"
            )
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and self._token and _origin(newurl) == _origin(self._endpoint):
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        return request


def _opener(endpoint: str, token: str | None) -> OpenerDirector:
    paths = ssl.get_default_verify_paths()
    context = ssl.create_default_context()
    if not paths.cafile and not paths.capath and find_spec("certifi"):  # a Python of python.org on macOS has none
        import certifi

        context.load_verify_locations(certifi.where())
    return build_opener(_Redirects(endpoint, token), HTTPSHandler(context=context))


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _parsed(text: bytes, url: str) -> object:
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConversionError(f"{shown(url, limit=200)} is no page of a hub; check HF_ENDPOINT") from error
    return found


def _wait(error: HTTPError, n: int) -> float:
    """Return the seconds that the hub asks to wait, or those before the next of `n` tries."""
    asked = re.fullmatch(r"\d{1,6}", error.headers.get("Retry-After") or "")
    limit = re.search(r"\bt=(\d{1,6})", error.headers.get("RateLimit") or "")  # draft-ietf-httpapi-ratelimit-headers
    found = asked[0] if asked else limit[1] if limit and error.code == 429 else None
    return float(found) if found else pause(n)


def pause(n: int) -> float:
    """Return the seconds to wait after the `n`-th failure."""
    return 0.25 * 4.0 ** (n - 1)


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    return str(cause) or type(cause).__name__
