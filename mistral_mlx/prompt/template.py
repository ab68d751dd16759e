"""Renders a model's own chat template to text, safely.

A template is a program, and it comes from a model folder, which is untrusted. It runs in the sandbox of sandbox.py,
with a budget that grows with the messages: no template can take longer or write more than a chat of that size needs.
"""

import datetime
from collections.abc import Mapping, Sequence

from jinja2 import TemplateError, TemplateSyntaxError

from mistral_mlx.errors import TokenizerError, shown
from mistral_mlx.tokenizer.settings import MAX_TEMPLATE_CHARS

from .budget import Budget, BudgetError
from .sandbox import Sandbox

BASE_BUDGET = 6_000_000  # steps; they take less than a second on a slow laptop
BUDGET_PER_CHARACTER = 32
BUDGET_PER_MESSAGE = 20_000


class TemplateRejection(TokenizerError):
    """The template itself has refused the messages, with raise_exception."""


class _Raised(TemplateError):
    pass


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool,
    bos_token: str | None,
    eos_token: str | None,
) -> str:
    """Return the text that `template` makes of `messages`.

    Raises TemplateRejection if the template itself refuses the messages. Raises TokenizerError if the template does not
    parse, uses something that the sandbox does not allow, fails, or takes more steps than the messages need.
    """
    if len(template) > MAX_TEMPLATE_CHARS:
        raise TokenizerError(f"the chat template has {len(template):,} characters; the limit is {MAX_TEMPLATE_CHARS:,}")
    nchars = sum(len(message["content"]) for message in messages)
    budget = Budget(BASE_BUDGET + BUDGET_PER_CHARACTER * nchars + BUDGET_PER_MESSAGE * len(messages))
    sandbox = Sandbox(budget, {"raise_exception": _raise_exception, "strftime_now": _strftime_now})
    try:
        return sandbox.from_string(sandbox.prepare(template)).render(
            messages=[dict(message) for message in messages],
            add_generation_prompt=add_generation_prompt,
            bos_token=bos_token or "",
            eos_token=eos_token or "",
            tools=None,  # templates test whether these are none, not whether they are defined
            documents=None,
        )
    except _Raised as error:
        raise TemplateRejection(f"the chat template refuses these messages: {shown(str(error), limit=200)}") from error
    except TemplateSyntaxError as error:
        raise TokenizerError(
            f"the chat template does not parse: {shown(str(error.message), limit=120)} in line {error.lineno}"
        ) from error
    except BudgetError as error:
        raise TokenizerError(f"the chat template is refused: {error}") from error
    except Exception as error:  # a template can fail with any exception of Python
        what = str(error) or type(error).__name__
        raise TokenizerError(f"the chat template cannot be used: {shown(what, limit=120)}") from error


def _raise_exception(message: object = "") -> None:
    raise _Raised(str(message)[:1000] if isinstance(message, str) else type(message).__name__)


def _strftime_now(form: object) -> str:
    if not isinstance(form, str) or len(form) > 100:
        raise TemplateError("it asks for the date in a form that is not supported")
    return datetime.datetime.now().strftime(form)
