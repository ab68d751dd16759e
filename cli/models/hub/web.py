"""Asks a hub over HTTP: waits when it is asked to, tries again, and says in one line why an answer is none.

The user's token goes to the hub's own address alone, never to the host that a redirect names. urllib obeys the
variables for proxies.
"""

import errno
import json
import re
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from http.client import HTTPException, HTTPResponse
from typing import TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import Request

from mistral_mlx.errors import ConversionError, shown
from mistral_mlx.version import __version__

from .opener import make_opener, origin

TIMEOUT_S = 30  # without a byte
MAX_PAGES_BYTES, MAX_PAGES = 8_000_000, 100  # of one question; an entry of a tree takes 300 bytes
MAX_WAIT_S = 300  # that a hub may ask for before we give up
BUSY = (408, 429, 500, 502, 503, 504)
N_TRIES = 4
LOST = (URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError)  # a connection that failed
UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)
MODEL = re.compile(r"([^/]+/[^/]+)/(?:resolve|revision|tree)/")
NEXT_PAGE = re.compile(r'<([^>]+)>;\s*rel="next"')

Found = TypeVar("Found")


class Web:
    """Opens the addresses of one hub. `say` is told when it has to wait."""

    def __init__(self, endpoint: str, token: str | None, say: Callable[[str], None]) -> None:
        self.endpoint, self._token, self._say = endpoint, token, say
        self._opener = make_opener(endpoint, token)

    def pages(self, path: str) -> list[object]:
        """Return the JSON of `path` below the endpoint, and of the pages that follow it. Raises ConversionError."""
        url, left = f"{self.endpoint}/{path}", MAX_PAGES_BYTES
        found: list[object] = []
        for _ in range(MAX_PAGES):
            text, link = self._asking(url, partial(self._page, url, left))
            found.append(_parsed(text, url))
            left -= len(text)
            following = NEXT_PAGE.search(link)
            if following is None:
                return found
            url = self._here(urljoin(url, following[1]))
        raise ConversionError(f"{shown(url, limit=200)} has more pages than is plausible")

    def open(self, url: str, start: int = 0) -> HTTPResponse:
        """Return the answer for `url`, from its byte `start` on if the server can do that. Raises ConversionError."""
        return self._asking(url, lambda: self._answer(url, start))

    def wait(self, seconds: float, why: str) -> None:
        """Say why nothing happens, and wait."""
        if seconds >= 1:
            self._say(f"{why}; trying again in {seconds:.0f} s")
        time.sleep(seconds)

    def unreachable(self, error: Exception) -> str:
        """Return the message for a hub that does not answer."""
        return (
            f"{shown(urlsplit(self.endpoint).netloc)} cannot be reached ({_reason(error)}); check the connection, the "
            "proxy and HF_ENDPOINT, and try again"
        )

    def _asking(self, url: str, ask: Callable[[], Found]) -> Found:
        """Return what `ask` returns. A busy hub and a failed connection are asked again."""
        for n in range(1, N_TRIES + 1):
            try:
                return ask()
            except HTTPError as error:
                with closing(error):
                    wait = _wait(error, n)
                    if error.code not in BUSY or n == N_TRIES or wait > MAX_WAIT_S:
                        raise ConversionError(self._refused(error, url, wait)) from error
                    self.wait(wait, f"the hub is busy ({error.code} {shown(error.reason)})")
            except LOST as error:
                if n == N_TRIES or isinstance(_cause(error), ssl.SSLCertVerificationError):
                    raise ConversionError(self.unreachable(error)) from error
                self.wait(pause(n), f"the hub does not answer ({_reason(error)})")
            except ValueError as error:  # of urllib, for what is no address
                raise ConversionError(f"the hub names what is no address ({shown(str(error))})") from error
        raise AssertionError("the last try returns or raises")

    def _answer(self, url: str, start: int) -> HTTPResponse:
        request = Request(url, headers={"User-Agent": f"mistral-mlx/{__version__}"})
        if start:
            request.add_header("Range", f"bytes={start}-")
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        answer: HTTPResponse = self._opener.open(request, timeout=TIMEOUT_S)
        return answer

    def _page(self, url: str, limit: int) -> tuple[bytes, str]:
        """Return the body of an answer, of at most `limit` bytes, and the links in its head."""
        with self._answer(url, 0) as answer:
            text = answer.read(limit + 1)
            if len(text) > limit:
                raise ConversionError(f"{shown(url, limit=200)} sends more than is plausible; it is no model's page")
            if len(text) < int(answer.headers.get("Content-Length") or 0):
                raise ConnectionError("the connection was cut")
            return text, answer.headers.get("Link") or ""

    def _here(self, url: str) -> str:
        """Return an address on the hub: a mirror may name the hub that it mirrors, and no other host gets the token."""
        if origin(url) == origin(self.endpoint):
            return url
        parts, own = urlsplit(url), urlsplit(self.endpoint)
        return parts._replace(scheme=own.scheme, netloc=own.netloc).geturl()

    def _refused(self, error: HTTPError, url: str, wait: float) -> str:
        """Return the message for an answer that is an error; the codes are those of the hub's API."""
        code, text = error.headers.get("X-Error-Code") or "", error.headers.get("X-Error-Message") or error.reason
        said = f"{error.code} {shown(text, limit=160)}"
        name = MODEL.search(url)
        page = f"{self.endpoint}/{name[1]}" if name else self.endpoint
        if code == "GatedRepo":
            token = (
                "check that HF_TOKEN is of that account" if self._token else "set HF_TOKEN to a token of that account"
            )
            return f"the model is gated; accept its terms at {page}, then {token}"
        if code == "RevisionNotFound":
            return f"the model has no such revision; {page} lists its branches, tags and commits"
        if code == "EntryNotFound":
            return f"a file has gone from {page} ({said}); try again"
        if self._token and error.code == 401 and "credentials" in text.lower():
            return f"the access token is not valid ({said}); renew it, or unset HF_TOKEN"
        if code == "RepoNotFound" or error.code in (401, 404):
            token = ", and that the token may read it" if self._token else ", or set HF_TOKEN"
            return f"there is no such model at {page}, or it is private ({said}); check the name{token}"
        if error.code == 403 and "disabled" not in text.lower():
            return f"{page} may not be read ({said}); set HF_TOKEN to a token that has the right to"
        if error.code == 429:
            return f"the hub asks to wait {wait:.0f} s ({said}); try again later, or set HF_TOKEN for a higher limit"
        return f"the hub answers {said}; look at {page}, or try again later"


def read_part(answer: HTTPResponse, nbytes: int) -> bytes:
    """Return what has arrived of an answer, at most `nbytes`. Raises one of LOST if the connection has failed."""
    try:
        return answer.read1(nbytes)
    except OSError as error:
        if error.errno in UNREACHABLE:
            raise ConnectionError(error.strerror) from error
        raise


def pause(n: int) -> float:
    """Return the seconds to wait after the `n`-th failure."""
    return 0.25 * 4.0 ** (n - 1)


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


def _cause(error: Exception) -> object:
    """Return what urllib has wrapped."""
    return error.reason if isinstance(error, URLError) else error


def _reason(error: Exception) -> str:
    cause = _cause(error)
    return shown(str(cause) or type(cause).__name__, limit=160)
