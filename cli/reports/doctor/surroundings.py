"""The checks of ``doctor`` on the environment: settings for the network, of which only the names are told, and the
terminal.
"""

import locale
import os
import shutil
import sys
from collections.abc import Mapping

from mistral_mlx.cli.models.hub import settings
from mistral_mlx.cli.options.sources import PREFIX, Option, unknown_variables
from mistral_mlx.errors import OptionError

from .findings import Findings

# Values of these can hold passwords.
NETWORK = (
    *("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"),
)


def network(found: Findings) -> None:
    """Say which settings of `pull` are set. This opens no connection."""
    names = [name for name in NETWORK if os.environ.get(name) or os.environ.get(name.lower())]
    is_offline = settings.is_offline()
    try:
        has_token = settings.token() is not None
    except OptionError as error:
        has_token = False
        found.fault(str(error), "make a new one, or unset HF_TOKEN")
    found.facts = {"set": list(names), "token": has_token, "offline": is_offline}
    texts = [f"set: {', '.join(names)}" if names else "no variable is set"]
    texts += ["Hugging Face's access token is there" if has_token else "no access token of Hugging Face"]
    say = found.note if is_offline else found.ok
    say("; ".join([*texts, *(["downloads are forbidden"] if is_offline else [])]))
    try:
        settings.endpoint()
    except OptionError:
        found.fault("HF_ENDPOINT is no address", f"unset it, or give one such as {settings.HUB}")


def variables(found: Findings, known: Mapping[str, list[Option]]) -> None:
    """Say which of the program's own variables are set, and which have no effect."""
    names = sorted(name for name in os.environ if name.startswith(PREFIX))
    found.facts = {"set": list(names)}
    remark = unknown_variables([option for options in known.values() for option in options])
    if remark:
        found.note(remark)
    found.ok(f"set: {', '.join(names)}" if names else f"no variable {PREFIX}... is set")


def terminal(found: Findings) -> None:
    """Say what the terminal can show."""
    streams = {name: getattr(sys, name).isatty() for name in ("stdin", "stdout", "stderr")}
    columns, term = shutil.get_terminal_size().columns, os.environ.get("TERM")
    is_plain, encoding = bool(os.environ.get("NO_COLOR")), locale.getencoding()
    found.facts = streams | {"columns": columns, "term": term, "no_color": is_plain, "encoding": encoding}
    on = [name for name, is_terminal in streams.items() if is_terminal]
    where = f"{', '.join(on)} on a terminal" if on else "no stream is on a terminal"
    colours = "NO_COLOR is set" if is_plain else "NO_COLOR not set"
    text = f"{where}, {columns} columns, TERM {term or 'not set'}, {colours}, {encoding}"
    if encoding.replace("-", "").lower() == "utf8":
        found.ok(text)
    else:
        found.note(f"{text}; text is written as UTF-8 all the same, so choose a locale such as C.UTF-8")
