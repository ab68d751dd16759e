"""How ``complete`` writes its answers to stdout: as text, as its code block, as JSON, or as events one a line."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Protocol

from mistral_mlx.cli.terminal.streams import write_text
from mistral_mlx.cli.terminal.table import print_json, rounded
from mistral_mlx.cli.terminal.thoughts import Thoughts
from mistral_mlx.generation.response import GenerationResponse
from mistral_mlx.sampling.logprobs import TokenLogprobs
from mistral_mlx.sampling.sampler import Sampler
from mistral_mlx.tokenizer.choose import Tokenizer
from mistral_mlx.tokenizer.detokenizer import join_stream

from .code_block import FirstCodeBlock
from .said import Said

NOT_COUNTS = ("text", "reasoning", "token", "finish_reason", "logprobs")


@dataclass
class Answer:
    """What has been generated so far, its prefill included."""

    sampler: Sampler
    index: int = 0
    said: Said = field(default_factory=Said)
    logprobs: list[Mapping[str, object]] | None = None  # None if not asked for
    block: FirstCodeBlock | None = None
    code: str = ""
    last: GenerationResponse | None = None
    finish_reason: str = "interrupt"  # until the last piece says otherwise
    start_ttft_s: float = 0.0  # from the start of the program

    @property
    def text(self) -> str:
        """The text so far."""
        return self.said.text

    def add(self, text: str) -> str:
        """Take up a text, and return what of it is to be shown: itself, or what it adds to the code block."""
        self.said.text += text
        return self._shown(text)

    def take(self, response: GenerationResponse) -> str:
        """Take up a response, and return what of its text is to be shown."""
        self.said.add(response)
        return self._shown(response.text)

    def end(self) -> str:
        """Return what is still to be shown once no more comes."""
        return "" if self.block is None else self._add_code(self.block.flush())

    def _shown(self, text: str) -> str:
        return text if self.block is None else self._add_code(self.block.add(text))

    def _add_code(self, code: str) -> str:
        self.code += code
        return code


class Output(Protocol):
    """Is told of every answer, from its beginning to its end."""

    def begin(self, answer: Answer) -> None: ...
    def piece(self, answer: Answer, shown: str, response: GenerationResponse | None) -> None: ...
    def end(self, answer: Answer) -> None: ...
    def close(self) -> None: ...


class TextOutput:
    """The text itself and a line feed at its end, then a line for each call; a blank line between two answers.

    Reasoning goes to `thoughts`.
    """

    def __init__(self, *, stream: bool, thoughts: Thoughts) -> None:
        self._stream, self._thoughts = stream, thoughts
        self._held = ""
        self._ends_line = False

    def begin(self, answer: Answer) -> None:
        if answer.index:
            write_text("\n")
        self._ends_line = answer.block is not None  # no block, no line

    def piece(self, answer: Answer, shown: str, response: GenerationResponse | None) -> None:
        if response is not None:
            self._thoughts.write(response.reasoning)
        if shown:
            self._thoughts.end()
        if not self._stream:
            self._held += shown
        elif shown:
            write_text(shown)
            self._ends_line = shown.endswith("\n")

    def end(self, answer: Answer) -> None:
        self._thoughts.end()
        rest = self._held + answer.end()
        self._ends_line = rest.endswith("\n") if rest else self._ends_line
        is_only_calls = bool(answer.said.calls) and not answer.text
        write_text(rest + ("" if self._ends_line or is_only_calls else "\n"))
        for call in answer.said.calls or ():
            print_json(call)
        self._held = ""

    def close(self) -> None:
        pass


class JsonOutput:
    """One object, or an array of them where several answers were asked for."""

    def __init__(self, name: str, *, as_array: bool) -> None:
        self._name, self._as_array = name, as_array
        self._records: list[dict[str, object]] = []

    def begin(self, answer: Answer) -> None:
        pass

    def piece(self, answer: Answer, shown: str, response: GenerationResponse | None) -> None:
        pass

    def end(self, answer: Answer) -> None:
        answer.end()
        texts = {"text": answer.text, **answer.said.more()}
        texts |= {} if answer.block is None else {"code": code_of(answer)}
        self._records.append(texts | record(answer, self._name))
        if answer.logprobs is not None:
            self._records[-1]["logprobs"] = answer.logprobs

    def close(self) -> None:
        print_json(self._records if self._as_array else self._records[0])


class JsonlOutput:
    """An event a line, while it happens: start, token and end of every answer."""

    def __init__(self, name: str) -> None:
        self._name = name

    def begin(self, answer: Answer) -> None:
        start = {"event": "start", "index": answer.index, "model": self._name, "seed": answer.sampler.seed}
        print_json({**start, "prompt_tokens": None if answer.last is None else answer.last.prompt_tokens})

    def piece(self, answer: Answer, shown: str, response: GenerationResponse | None) -> None:
        if response is None:  # the prefill, which is text and no token
            print_json({"event": "prefill", "index": answer.index, "text": answer.text})
            return
        event = {"event": "token", "index": answer.index, "text": response.text, "token": response.token}
        event |= {"reasoning": response.reasoning} if response.reasoning else {}
        print_json(event | (dict(answer.logprobs[-1]) if answer.logprobs else {}))

    def end(self, answer: Answer) -> None:
        answer.end()
        code = {} if answer.block is None else {"code": code_of(answer)}
        results = answer.said.results()
        print_json({"event": "end", "index": answer.index, **results, **code, **record(answer, self._name)})

    def close(self) -> None:
        pass


def record(answer: Answer, name: str) -> dict[str, object]:
    """Return all that is to be said of an answer but its text."""
    counts = {} if answer.last is None else asdict(answer.last)
    counts |= {"start_ttft_s": answer.start_ttft_s}
    return {
        "finish_reason": answer.finish_reason,
        **{key: rounded(value) for key, value in counts.items() if key not in NOT_COUNTS},
        "seed": answer.sampler.seed,
        "temperature": answer.sampler.options.temperature,
        "model": name,
    }


def code_of(answer: Answer) -> str | None:
    """Return the code block of an answer, None if it has none."""
    return answer.code if answer.block is not None and answer.block.found else None


def spelled_logprobs(logprobs: TokenLogprobs, token: int, tokenizer: Tokenizer) -> dict[str, object]:
    """Return log probabilities with the text of tokens: a control token's name, U+FFFD for part of a character."""

    def entry(token: int, logprob: float) -> dict[str, object]:
        names = [text for text, control in tokenizer.control.items() if control == token]
        text = names[0] if names else join_stream(tokenizer.detokenizer(continues=True), [token])
        return {"token": token, "text": text, "logprob": rounded(logprob)}

    chosen = {"token": token, "logprob": rounded(logprobs.logprob)}
    return {**chosen, "top_logprobs": [entry(*pair) for pair in logprobs.top]}
