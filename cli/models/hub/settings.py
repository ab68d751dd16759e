"""The settings of Hugging Face's tools, read from the same variables and files as huggingface_hub reads them.

HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE (huggingface_hub/constants.py).
"""

import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from mistral_mlx.cli.models.small_file import small_text
from mistral_mlx.errors import ModelError, OptionError, shown

HUB = "https://huggingface.co"
MAX_TOKEN_BYTES = 10_000
TRUE = {"1", "on", "yes", "true"}


def endpoint() -> str:
    """Return the address of the hub, without a slash at its end. Raises OptionError if HF_ENDPOINT is none."""
    url = os.environ.get("HF_ENDPOINT") or HUB
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_address = False
    if not is_address:
        value = "" if "@" in url else f" is {shown(url)}; it"  # there may be a password in it
        raise OptionError(f"HF_ENDPOINT{value} must be an address such as {HUB}")
    if parts.username is not None or parts.query or parts.fragment:
        raise OptionError(f"HF_ENDPOINT must be an address such as {HUB}, without a user and without '?' and '#'")
    return url.rstrip("/")


def token() -> str | None:
    """Return the user's access token, of HF_TOKEN or of the file that `hf auth login` writes; None without one.

    Raises OptionError if it cannot be one.
    """
    if _is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return None
    text = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    if text is None:
        with suppress(ModelError):  # no token, if the file cannot be read
            text = small_text(_path("HF_TOKEN_PATH", _home() / "token"), MAX_TOKEN_BYTES, follow=True)
    found = (text or "").replace("\r", "").replace("\n", "").strip()
    if not all("!" <= c <= "~" for c in found):
        raise OptionError(
            "the access token in HF_TOKEN, or in the file of 'hf auth login', has characters that none has"
        )
    return found or None


def cache() -> Path:
    """Return the folder in which Hugging Face's tools keep models: ``models--ORG--REPO`` and so on."""
    old = _path("HUGGINGFACE_HUB_CACHE", _home() / "hub")
    return _path("HF_HUB_CACHE", old)


def is_offline() -> bool:
    """Return whether the user forbids the network."""
    return _is_set("HF_HUB_OFFLINE") or _is_set("TRANSFORMERS_OFFLINE")


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() in TRUE


def _home() -> Path:
    caches = _path("XDG_CACHE_HOME", Path(os.path.expanduser("~/.cache")))
    return _path("HF_HOME", caches / "huggingface")


def _path(variable: str, default: Path) -> Path:
    value = os.environ.get(variable)
    return Path(os.path.expanduser(os.path.expandvars(value))) if value else default  # Path's fails without a home
