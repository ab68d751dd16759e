"""``batch``: many prompts, one after the other, each result a line that is written once and whole.

Prompts are decoded one by one, because all rows of a batch must have the same position and prompts have different
lengths. The common beginning of the prompts is read only once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import typer

from mistral_mlx.cli.options.answer import AnswerKnobs, read_values
from mistral_mlx.cli.statuses import Status
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.signals import Interrupted
from mistral_mlx.errors import ContextError, ModelError, OptionError, counted
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.generation.response import GenerationResponse
from mistral_mlx.generation.stream import stream
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.prompt.official import SystemContent
from mistral_mlx.sampling.options import MAX_SEED
from mistral_mlx.sampling.sampler import Sampler
from mistral_mlx.session.session import MAX_SNAPSHOT_BYTES
from mistral_mlx.tokenizer.choose import Tokenizer

from .batch_files import Results, Task, read_tasks
from .prompt import Prompt
from .said import Said

__all__ = ["Defaults", "Results", "leave", "read_tasks", "run"]

OWN_KEYS = ("id", "prompt", "messages", "system", "prefill", "tools")


@dataclass(frozen=True)
class Defaults:
    """What holds for every line that does not say otherwise."""

    options: AnswerKnobs
    system: SystemContent | None = None
    template: str | None = None
    raw: bool = False
    meaning: Callable[[str], SystemContent | None] = str  # of the text of a system prompt, such as @model

    def __post_init__(self) -> None:
        """Raise OptionError for what cannot go together before there is any work."""
        Prompt(system=self.system, template=self.template, raw=self.raw)


@dataclass(frozen=True)
class Request:
    """A line of the input as it is asked of the model."""

    prompt: Prompt
    sampler: Sampler
    max_tokens: int
    stop: Sequence[str]


class Decoder:
    """Answers one prompt after the other; what the next one has in common with the last is not evaluated again."""

    def __init__(self, model: Mistral, tokenizer: Tokenizer) -> None:
        self._timeline = Timeline(model, max_snapshot_bytes=MAX_SNAPSHOT_BYTES)
        self._tokenizer = tokenizer

    def answer(self, request: Request) -> tuple[dict[str, object], GenerationResponse]:
        """Return the answer as JSON has it, its text with the prefill, and the last response."""
        prompt = request.prompt
        options = AnswerOptions(
            sampler=request.sampler,
            max_tokens=request.max_tokens,
            stop=request.stop,
            continues=prompt.continues(self._tokenizer) or bool(prompt.prefill),
            splits=not prompt.continues(self._tokenizer),
            calls=bool(prompt.tools),
        )
        responses = list(stream(self._timeline, self._tokenizer, prompt.encode(self._tokenizer), options))
        said = Said(prompt.prefill)
        for response in responses:
            said.add(response)
        said.text += said.end(prompt, self._tokenizer)
        reason = responses[-1].finish_reason
        reason = "tool_calls" if said.calls and reason == "stop" else reason
        return {"text": said.text, **said.more(), "finish_reason": reason}, responses[-1]


def run(results: Results, defaults: Defaults, model: Mistral, tokenizer: Tokenizer, notes: Notes) -> None:
    """Answer what remains. What is wrong with a line becomes its result; typer.Exit is raised by an interrupt."""
    decoder = Decoder(model, tokenizer)
    try:
        with notes.progress("lines") as bar:
            bar("answering", results.n_done, results.n_tasks)
            for task in results.remaining:
                result = _result(decoder, task, defaults)
                bar.hide()  # the results may go to the same terminal
                results.write(task, result)
                bar("answering", results.n_done, results.n_tasks)
    except Interrupted as signal:
        going_on = "; the same command goes on from there" if results.can_resume else ""
        notes.say(f"interrupted after {results.n_done} of {counted(results.n_tasks, 'line')}{going_on}")
        raise typer.Exit(signal.status) from None


def leave(results: Results, notes: Notes) -> None:
    """Write how many lines were answered. Raises typer.Exit with the documented status if a line failed."""
    if results.n_failed:
        n_failed = f"{results.n_failed} of {counted(results.n_tasks, 'line')}"
        notes.error(f"{n_failed} could not be answered; the results say why")
        raise typer.Exit(Status.SOME_FAILED)
    if results.can_resume:
        notes.say(f"{counted(results.n_tasks, 'line')} answered, {results.n_kept} of them by an earlier run")


def _result(decoder: Decoder, task: Task, defaults: Defaults) -> dict[str, object]:
    try:
        request = request_of(task, defaults)
        answer, last = decoder.answer(request)
    except (OptionError, ContextError, ModelError) as error:
        return {"error": str(error)}
    return {
        **answer,
        "prompt_tokens": last.prompt_tokens,
        "cached_tokens": last.cached_tokens,
        "generation_tokens": last.generation_tokens,
        "reasoning_tokens": last.reasoning_tokens,
        "seed": request.sampler.seed,
        "temperature": request.sampler.options.temperature,
    }


def request_of(task: Task, defaults: Defaults) -> Request:
    """Return what a line asks for. Raises OptionError if it cannot be asked."""
    value = task.value()
    if isinstance(value, str):
        value = {"prompt": value}
    elif isinstance(value, list):
        value = {"messages": value}
    elif not isinstance(value, dict):
        raise OptionError("the line is neither a text, nor a list of messages, nor an object")
    own = read_values(AnswerKnobs, {key: value[key] for key in value if key not in OWN_KEYS}, "the line")
    seed = defaults.options.seed
    own = ({} if seed is None else {"seed": (seed + task.index) % (MAX_SEED + 1)}) | own
    options = replace(defaults.options, **own)
    prompt = replace(_prompt(value, defaults), reasoning_effort=options.reasoning_effort or None)
    return Request(prompt, Sampler(options), options.max_tokens, options.stop)


def _prompt(value: Mapping[str, object], defaults: Defaults) -> Prompt:
    for key in ("prompt", "system", "prefill"):
        if not isinstance(value.get(key, ""), str):
            raise OptionError(f"{key} of the line is not a text")
    text, messages, tools = value.get("prompt", ""), value.get("messages", []), value.get("tools", [])
    if bool(text) == bool(messages) or not isinstance(messages, list):
        raise OptionError("the line needs a prompt, which is a text, or messages, which are a list, and not both")
    if not isinstance(tools, list):
        raise OptionError("tools of the line is not a list")
    return Prompt(
        text=str(text),
        system=defaults.meaning(str(value["system"])) if "system" in value else defaults.system,
        prefill=str(value.get("prefill", "")).rstrip(" "),
        template=defaults.template,
        raw=defaults.raw,
        tools=tools or (),
    ).answering(messages)
