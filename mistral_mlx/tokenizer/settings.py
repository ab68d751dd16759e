"""Reads the settings of a tokenizer: bos, eos, added tokens, chat template.

They are in tokenizer_config.json, special_tokens_map.json and added_tokens.json; a chat template may be in one of three
places. All values are checked. If a value names a file, that file is never opened.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mistral_mlx.errors import ModelError, TokenizerError, shown
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.files.json import MAX_JSON_BYTES, parse_json

from .named_templates import template_named

MAX_TEMPLATE_CHARS = 100_000  # of a hundred real ones none has more than 7,000
MAX_ADDED_TOKENS = 100_000


@dataclass(frozen=True)
class TokenizerSettings:
    """The settings of one folder; a field is None if no file sets it."""

    bos: str | None
    eos: str | None
    add_bos: bool | None
    added_tokens: Mapping[str, int]  # tokens that are not in the vocabulary file
    special: frozenset[str]  # the added tokens that are declared special
    chat_template: str | None
    has_config: bool  # whether the folder has a tokenizer_config.json


def read_settings(folder: ModelFolder) -> TokenizerSettings:
    """Return the settings in `folder`. Raises TokenizerError for an invalid file or value."""
    config = read_object(folder, "tokenizer_config.json")
    special_map = read_object(folder, "special_tokens_map.json")
    added, special = _added_tokens(folder, config)
    return TokenizerSettings(
        bos=_token_text(config, special_map, "bos_token"),
        eos=_token_text(config, special_map, "eos_token"),
        add_bos=_optional_bool(config, "add_bos_token"),
        added_tokens=added,
        special=special | _additional_special(config) | _additional_special(special_map),
        chat_template=_chat_template(folder, config),
        has_config=folder.has("tokenizer_config.json"),
    )


def read_object(folder: ModelFolder, name: str) -> dict[str, object]:
    """Return the JSON object in the file `name`, or an empty one if the file does not exist."""
    if not folder.has(name):
        return {}
    return parse_json(read_text(folder, name), name=name, error=TokenizerError)


def read_text(folder: ModelFolder, name: str, *, limit: int = MAX_JSON_BYTES) -> str:
    """Return the text in the file `name`. Raises TokenizerError if it is too long or not text."""
    try:
        return folder.text(name, limit=limit)
    except ModelError as error:
        raise TokenizerError(str(error)) from error


def _token_text(config: Mapping[str, object], special_map: Mapping[str, object], key: str) -> str | None:
    """Return the token under `key`: a text, or an object with the text in `content`."""
    for name, source in (("tokenizer_config.json", config), ("special_tokens_map.json", special_map)):
        value = source.get(key)
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str) and value:
            return value
        if value is not None and value != "":
            raise TokenizerError(f"{key} in {name} must be the text of a token, not {shown(value)}")
    return None


def _optional_bool(config: Mapping[str, object], key: str) -> bool | None:
    value = config.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise TokenizerError(f"{key} in tokenizer_config.json must be true or false, not {shown(value)}")


def _added_tokens(folder: ModelFolder, config: Mapping[str, object]) -> tuple[dict[str, int], frozenset[str]]:
    """Return {text: id} of added_tokens.json and added_tokens_decoder, and the special texts."""
    found: dict[str, int] = {}
    special = set()
    for added, token_id in read_object(folder, "added_tokens.json").items():
        found[added] = _token_id(token_id, "added_tokens.json")
    declared = config.get("added_tokens_decoder") or {}
    if not isinstance(declared, dict):
        raise TokenizerError(f"added_tokens_decoder must be a JSON object, not {shown(declared)}")
    for key, token in declared.items():
        text = token.get("content") if isinstance(token, dict) else None
        if not isinstance(token, dict) or not isinstance(text, str):
            raise TokenizerError(f"added_tokens_decoder has no token text under {shown(key)}")
        found[text] = _token_id(int(key) if key.isdecimal() and len(key) < 10 else key, "added_tokens_decoder")
        if token.get("special") is True:
            special.add(text)
    if len(found) > MAX_ADDED_TOKENS:
        raise TokenizerError(f"the tokenizer has {len(found)} added tokens; the limit is {MAX_ADDED_TOKENS}")
    found.pop("", None)
    return found, frozenset(special)


def _token_id(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10_000_000:
        raise TokenizerError(f"{name} gives {shown(value)} as a token id; a number from 0 to 9999999 is expected")
    return value


def _additional_special(source: Mapping[str, object]) -> frozenset[str]:
    tokens = source.get("additional_special_tokens")
    if not isinstance(tokens, list):
        return frozenset()
    texts = (token.get("content") if isinstance(token, dict) else token for token in tokens)
    return frozenset(text for text in texts if isinstance(text, str))


def _chat_template(folder: ModelFolder, config: Mapping[str, object]) -> str | None:
    """Return the chat template; its own file overrides tokenizer_config.json (transformers)."""
    template: object
    if folder.has("chat_template.jinja"):
        name, template = "chat_template.jinja", read_text(folder, "chat_template.jinja") or None
    elif config.get("chat_template") is not None:
        name, template = "tokenizer_config.json", _default_template(config["chat_template"])
    else:
        name, template = "chat_template.json", read_object(folder, "chat_template.json").get("chat_template")
    if template == "":
        return None
    template = template_named(template) if isinstance(template, str) else template
    if template is not None and not isinstance(template, str):
        raise TokenizerError(f"the chat template in {name} must be a text, not {shown(template)}")
    if template is not None and len(template) > MAX_TEMPLATE_CHARS:
        raise TokenizerError(
            f"the chat template in {name} has {len(template):,} characters; more than {MAX_TEMPLATE_CHARS:,} is refused"
        )
    return template


def _default_template(value: object) -> object:
    """Return the template; in a list of several it is the one called "default"."""
    if not isinstance(value, list):
        return value
    for entry in value:
        if isinstance(entry, dict) and entry.get("name") == "default":
            return entry.get("template")
    return None
