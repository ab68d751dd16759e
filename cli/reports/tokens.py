"""The report of ``tokens``: the ids, pieces and control tokens of a text or a chat, and the whole prompt."""

import json
from itertools import groupby

from mistral_mlx.cli.terminal.sanitize import inert
from mistral_mlx.cli.terminal.streams import write_text
from mistral_mlx.cli.terminal.table import print_json
from mistral_mlx.errors import counted
from mistral_mlx.prompt.encode import encode_chat
from mistral_mlx.prompt.official import SystemContent
from mistral_mlx.tokenizer.choose import Tokenizer
from mistral_mlx.tokenizer.detokenizer import REPLACEMENT


def encode(
    tokenizer: Tokenizer, text: str, *, chat: bool, system: SystemContent | None, template: str | None
) -> list[int]:
    """Return the ids of a text, or with `chat` of a user's message in the model's chat format."""
    if not chat:
        return tokenizer.encode(text, bos=tokenizer.add_bos)
    messages: list[dict[str, object]] = [{"role": "system", "content": system}] if system else []
    return encode_chat(tokenizer, [*messages, {"role": "user", "content": text}], template=template)


def show(record: dict[str, object], *, as_json: bool) -> None:
    """Write the record of `describe` to stdout, as JSON or as a line for each token."""
    if as_json:
        print_json(record)
    else:
        write_text(_table(record))


def describe(tokenizer: Tokenizer, ids: list[int]) -> dict[str, object]:
    """Return the ids, the text of each, which are control tokens, and the whole with control tokens written out.

    What is a part of a character in a token is shown as bytes: <0xF0>.
    """
    control = {token: text for text, token in tokenizer.control.items()}
    return {
        "count": len(ids),
        "ids": ids,
        "pieces": [control[i] if i in control else _piece(tokenizer, i) for i in ids],
        "control": [i in control for i in ids],
        "prompt": "".join(
            "".join(control[i] for i in run) if is_control else _text(tokenizer, list(run))
            for is_control, run in groupby(ids, control.__contains__)
        ),
    }


def _piece(tokenizer: Tokenizer, token: int) -> str:
    text = _text(tokenizer, [token])
    data = tokenizer.detokenizer(continues=True).bytes_of(token) if REPLACEMENT in text else None
    if data is None:
        return text
    loose = data.decode("utf-8", errors="surrogateescape")  # a byte that belongs to no character is U+DC00 more
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if "\udc80" <= c <= "\udcff" else c for c in loose)


def _text(tokenizer: Tokenizer, ids: list[int]) -> str:
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
