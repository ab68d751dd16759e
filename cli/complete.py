"""``complete``: one prompt in, one answer out on stdout, for pipes and scripts."""

import json
import select
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import typer

from mistral_mlx.errors import OptionError, shown
from mistral_mlx.generation import GenerationResponse, stream_generate
from mistral_mlx.instruct import encode_chat
from mistral_mlx.model import Mistral
from mistral_mlx.sampling import Sampler
from mistral_mlx.tokenizer import Tokenizer

from .remarks import statistics, untrained_position
from .terminal import Interrupted, PrefillProgress, note, write_text

WAIT_S = 1.0  # after which a silent standard input is worth a remark
NOTES = {
    "length": "stopped at the limit of {generation_tokens} tokens (--max-tokens); the answer may go on",
    "context": "stopped because the model's context is full, after {generation_tokens} tokens",
    "interrupt": "interrupted after {generation_tokens} tokens",
}


@dataclass(frozen=True)
class Job:
    """What to complete and how to show it."""

    prompt: str
    name: str  # of the model, as the user gave it
    sampler: Sampler
    max_tokens: int
    started: float  # time.perf_counter() when the process began
    stop: list[str] = field(default_factory=list)
    system: str | None = None
    template: str | None = None
    raw: bool = False
    as_json: bool = False
    stats: bool = False
    quiet: bool = False


@dataclass
class Answer:
    """What has been generated so far."""

    pieces: list[str] = field(default_factory=list)
    last: GenerationResponse | None = None
    finish_reason: str = "interrupt"
    start_ttft_s: float = 0.0  # from the start of the program

    @property
    def text(self) -> str:
        """The pieces joined."""
        return "".join(self.pieces)


def join_prompt(argument: str | None, prompt_file: Path | None) -> str:
    """Return the prompt: standard input, then the file, then the argument, with a blank line between them.

    One line feed at the end of the input or the file ends its last line and is not part of the prompt; nothing else
    is touched. Raises OptionError if there is nothing at all, or something is not UTF-8 text.
    """
    alone = argument is None and prompt_file is None
    parts = [
        _decode(_read_stdin(alone=alone), "standard input"),
        _decode(_read_file(prompt_file), str(prompt_file)),
        argument or "",
    ]
    prompt = "\n\n".join(part for part in parts if part)
    if not prompt:
        raise OptionError("there is no prompt: give it as an argument, by --prompt-file, or on standard input")
    return prompt


def run(job: Job, model: Mistral, tokenizer: Tokenizer) -> None:
    """Write the completion to stdout, piece by piece or as one JSON object, and what there is to say to stderr.

    Raises typer.Exit with the documented status after an interrupt or when nobody reads the output.
    """
    answer, interrupted = Answer(), None
    try:
        _stream(job, model, tokenizer, answer)
    except Interrupted as signal:
        interrupted, answer.finish_reason = signal, "interrupt"
    if job.as_json:
        write_text(json.dumps(_record(job, answer), ensure_ascii=False) + "\n")
    elif not answer.text.endswith("\n"):
        write_text("\n")
    _remark(job, answer, model.args.max_position_embeddings)
    if interrupted:
        raise typer.Exit(interrupted.status)


def _stream(job: Job, model: Mistral, tokenizer: Tokenizer, answer: Answer) -> None:
    """Generate into `answer`, which an interrupt leaves as far as it came, and write the text unless it is for JSON."""
    ids, continues = _encode(job, tokenizer)
    with PrefillProgress(sys.stderr, quiet=job.quiet) as progress:
        for response in stream_generate(
            model,
            tokenizer,
            ids,
            sampler=job.sampler,
            max_tokens=job.max_tokens,
            stop=job.stop,
            on_prefill=progress,
            continues=continues,
        ):
            answer.start_ttft_s = answer.start_ttft_s or time.perf_counter() - job.started
            answer.pieces.append(response.text)
            answer.last = response
            answer.finish_reason = response.finish_reason or "interrupt"  # until the last piece says otherwise
            if not job.as_json:
                write_text(response.text)


def _encode(job: Job, tokenizer: Tokenizer) -> tuple[list[int], bool]:
    """Return the prompt's ids, and whether the answer continues its text."""
    if job.raw and job.template:
        raise OptionError("--raw continues the text without a format; leave out --template, or --raw")
    formatted = job.template is not None or tokenizer.has_chat_format
    if job.raw or not formatted:
        if job.system:
            raise OptionError("--system needs an instruct format; this prompt is continued as plain text")
        if not job.raw and not job.quiet:
            note("this model has no instruct format: the text is continued as it is (--raw says so on purpose)")
        return tokenizer.encode(job.prompt, bos=tokenizer.add_bos), True
    system = [{"role": "system", "content": job.system}] if job.system else []
    return encode_chat(tokenizer, [*system, {"role": "user", "content": job.prompt}], template=job.template), False


def _remark(job: Job, answer: Answer, n_trained: int) -> None:
    """Say on stderr what the text does not: why it ended early, where it stands, and the statistics."""
    last = answer.last
    n_answered, n_tokens = (last.generation_tokens, last.prompt_tokens + last.generation_tokens) if last else (0, 0)
    if answer.finish_reason in NOTES and not job.quiet:
        note(NOTES[answer.finish_reason].format(generation_tokens=n_answered))
    if n_tokens > n_trained and not job.quiet:
        note(untrained_position(n_tokens, n_trained))
    if job.stats and last:
        figures = statistics(last, job.sampler.seed, answer.finish_reason)
        note(f"{figures}, {answer.start_ttft_s:.2f} s after the program's start")


def _record(job: Job, answer: Answer) -> dict[str, object]:
    counts = {} if answer.last is None else asdict(answer.last)
    dropped = ("text", "token", "finish_reason")
    return {
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        **{key: value for key, value in counts.items() if key not in dropped},
        "start_ttft_s": answer.start_ttft_s,
        "seed": job.sampler.seed,
        "temperature": job.sampler.temperature,
        "model": job.name,
    }


def _read_stdin(*, alone: bool) -> bytes:
    """Return what is piped in; a terminal is only read when there is no other source."""
    if not sys.stdin.isatty():
        if not alone and not select.select([sys.stdin], [], [], WAIT_S)[0]:
            note("waiting for standard input to end; add </dev/null if there is none")
        return sys.stdin.buffer.read()
    if not alone:
        return b""
    note("reading the prompt from the terminal; Ctrl-D ends it")
    return sys.stdin.buffer.read()


def _read_file(path: Path | None) -> bytes:
    if path is None or str(path) == "-":  # standard input is read anyway
        return b""
    try:
        return path.read_bytes()
    except OSError as error:
        raise OptionError(f"the prompt file {shown(str(path), limit=200)} cannot be read: {error.strerror}") from error


def _decode(data: bytes, source: str) -> str:
    try:
        return data.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        place = f"byte 0x{data[error.start]:02x} at {error.start}"
        raise OptionError(f"{shown(source, limit=200)} is not UTF-8 text: {place}") from error
