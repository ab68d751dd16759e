"""``tokens``: what a text, or a chat, is to a model: ids, pieces, control tokens, and the prompt as it is sent."""

import json
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.options import shared
from mistral_mlx.cli.terminal.reading import STDIN, decode, read_stdin
from mistral_mlx.cli.terminal.sanitize import inert
from mistral_mlx.cli.terminal.streams import write_text
from mistral_mlx.errors import OptionError, counted

if TYPE_CHECKING:
    from mistral_mlx.tokenizer.choose import Tokenizer


def tokens(
    text: Annotated[str | None, typer.Argument(help="The text; by default what is piped in.")] = None,
    model: shared.Model = None,
    chat: Annotated[bool, typer.Option("--chat", help="As a user's message, in the model's instruct format.")] = False,
    system: shared.System = None,
    template: shared.Template = None,
    as_json: shared.Json = False,
) -> None:
    """Show the ids and pieces of a text or of a chat, as they are sent to the model."""
    from mistral_mlx.tokenizer.choose import load_tokenizer

    if (system is not None or template is not None) and not chat:
        raise OptionError("--system and --template need --chat")
    tokenizer = load_tokenizer(registry.resolve(model))
    text = decode(read_stdin(), STDIN).removesuffix("\n") if text is None else text
    record = describe(tokenizer, _encode(tokenizer, text, chat=chat, system=system, template=template))
    write_text(json.dumps(record, ensure_ascii=False) + "\n" if as_json else _table(record))


def describe(tokenizer: "Tokenizer", ids: list[int]) -> dict[str, object]:
    """Return the ids, the text of each, which are control tokens, and the whole with control tokens written out.

    A token that is a part of a character, as bytes are, has the text U+FFFD.
    """
    control = {token: text for text, token in tokenizer.control.items()}
    return {
        "count": len(ids),
        "ids": ids,
        "pieces": [control[i] if i in control else _text(tokenizer, [i]) for i in ids],
        "control": [i in control for i in ids],
        "prompt": "".join(
            "".join(control[i] for i in run) if is_control else _text(tokenizer, list(run))
            for is_control, run in groupby(ids, control.__contains__)
        ),
    }


def _encode(tokenizer: "Tokenizer", text: str, *, chat: bool, system: str | None, template: str | None) -> list[int]:
    from mistral_mlx.prompt.instruct import encode_chat

    if not chat:
        return tokenizer.encode(text, bos=tokenizer.add_bos)
    messages = [{"role": "system", "content": system}] if system else []
    return encode_chat(tokenizer, [*messages, {"role": "user", "content": text}], template=template)


def _text(tokenizer: "Tokenizer", ids: list[int]) -> str:
    stream = tokenizer.detokenizer(continues=True)
    return "".join([*map(stream.add, ids), stream.flush()])


def _table(record: dict[str, object]) -> str:
    """Return a line a token, and the prompt; texts in JSON's quotes, so that every space and line feed is seen."""
    ids, pieces, control = record["ids"], record["pieces"], record["control"]
    assert isinstance(ids, list) and isinstance(pieces, list) and isinstance(control, list)
    width = max([len(str(i)) for i in ids], default=1)
    rows = [
        f"{token:>{width}}  {_quoted(piece)}" + ("  control" if is_control else "")
        for token, piece, is_control in zip(ids, pieces, control, strict=True)
    ]
    n_control = sum(control)
    total = f"{counted(len(ids), 'token')}, {n_control} control"
    return "\n".join([*rows, total, f"prompt: {_quoted(record['prompt'])}", ""])


def _quoted(text: object) -> str:
    return inert(json.dumps(text, ensure_ascii=False))
