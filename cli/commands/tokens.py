"""The options of ``tokens``; heavy imports are inside."""

from typing import Annotated

import typer

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.options import shared
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.reading import STDIN, decode, read_stdin
from mistral_mlx.errors import OptionError

EXAMPLES = """\
mistral-mlx tokens -m demo 'Hello there'
mistral-mlx tokens -m demo --chat --system 'Be brief.' Hi
"""


def tokens(
    text: Annotated[str | None, typer.Argument(help="The text; by default standard input.")] = None,
    model: shared.Model = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Show the text as a user's message, in the model's chat format.")
    ] = False,
    system: shared.System = None,
    template: shared.Template = None,
    as_json: shared.Json = False,
) -> None:
    """Show the tokens of a text or of a chat.

    Their ids and pieces are those that the model gets.
    """
    from mistral_mlx.cli.reports import tokens as command
    from mistral_mlx.prompt.official import system_of
    from mistral_mlx.tokenizer.choose import load_tokenizer

    if (system is not None or template is not None) and not chat:
        raise OptionError("--system and --template need --chat")
    path = registry.resolve(shared.chosen_model(model, Notes()))
    tokenizer = load_tokenizer(path)
    text = decode(read_stdin(), STDIN).removesuffix("\n") if text is None else text
    content = system_of(system, path, tokenizer, template)
    ids = command.encode(tokenizer, text, chat=chat, system=content, template=template)
    command.show(command.describe(tokenizer, ids), as_json=as_json)
