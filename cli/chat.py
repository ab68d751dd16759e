"""``chat``: a conversation in the terminal, or one message a line from a pipe."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from mistral_mlx.errors import MistralMLXError, OptionError, TokenizerError, shown
from mistral_mlx.generation import GenerationResponse
from mistral_mlx.sampling import Sampler
from mistral_mlx.session import Session

from .remarks import statistics, untrained_position
from .terminal import Interrupted, PrefillProgress, note, write_text

QUOTES = '"""'
ReadLine = Callable[[str], str]  # prompt to a line; EOFError is the end, KeyboardInterrupt Ctrl-C on an empty line


class Leave(Exception):
    """Raised by the command that ends the chat."""


@dataclass
class Chat:
    """A session and how its turns are run and shown."""

    session: Session
    sampler: Sampler
    max_tokens: int
    stop: list[str]
    stats: bool = False
    quiet: bool = False
    said_wrapped: bool = False
    said_untrained: bool = False

    def run(self, read_line: ReadLine) -> MistralMLXError | None:
        """Read messages and answer them until the input ends or Ctrl-C comes twice; return the last error."""
        n_interrupts, failed = 0, None
        while n_interrupts < 2:
            try:
                text = read_message(read_line)
                n_interrupts = 0
                self.handle(text)
            except KeyboardInterrupt:
                n_interrupts += 1
                if n_interrupts == 1:
                    self.say("Ctrl-C again, or Ctrl-D, leaves")
            except (EOFError, Leave):
                break
            except MistralMLXError as error:
                note(f"error: {error}")
                failed = error
        return failed

    def handle(self, text: str) -> None:
        """Answer a message, or do what a slash command says. Raises OptionError for an unknown command."""
        if not text.strip():
            return
        if text.startswith("/"):
            name, _, rest = text[1:].strip().partition(" ")
            if name not in COMMANDS:
                raise OptionError(
                    f"there is no command /{shown(name)}; /help lists them (a message cannot begin with a slash)"
                )
            COMMANDS[name].do(self, rest.strip())
        else:
            self.answer(text)

    def answer(self, text: str) -> None:
        """Stream the answer. Ctrl-C ends it at once while the prompt is read, and after the current token then."""
        last: GenerationResponse | None = None
        progress = PrefillProgress(sys.stderr, quiet=self.quiet)
        with progress, _interrupts(at_once=lambda: last is None) as interrupted:
            stream = self.session.ask(
                text, sampler=self.sampler, max_tokens=self.max_tokens, stop=self.stop, on_prefill=progress
            )
            try:
                for last in stream:
                    write_text(last.text)
                    if interrupted():
                        break
            except Interrupted as interrupt:
                if interrupt.number != signal.SIGINT:
                    raise
            finally:
                stream.close()  # the session keeps what was yielded
        if last is None:
            note("interrupted before the answer began; the message was not kept")
            return
        write_text("\n")
        self._remark(last.finish_reason)
        if self.stats:
            note(statistics(last, self.sampler.seed, last.finish_reason or "interrupt"))

    def say(self, text: str) -> None:
        """Write a remark, unless the chat is quiet."""
        if not self.quiet:
            note(text)

    def _remark(self, reason: str | None) -> None:
        args, n_tokens = self.session.model.args, self.session.n_tokens
        if reason is None:
            self.say("interrupted; the part above stays in the conversation")
        elif reason == "length":
            self.say(f"stopped at {self.max_tokens} tokens (--max-tokens)")
        elif reason == "context":
            self.say(f"the context of {args.context_limit} tokens is full; /clear starts over")
        if self.session.wrapped and not self.said_wrapped:
            self.said_wrapped = True
            windows = [w for w in args.sliding_window if w is not None]
            self.say(
                f"the conversation is now longer than the window of {min(windows)} tokens: what lies before it "
                "reaches the model only indirectly"
            )
        if n_tokens > args.max_position_embeddings and not self.said_untrained:
            self.said_untrained = True
            self.say(untrained_position(n_tokens, args.max_position_embeddings))


def greet(session: Session, *, name: str, quiet: bool) -> None:
    """Say what is being talked to. Raises TokenizerError if the model has no instruct format."""
    if session.template is None and not session.tokenizer.has_chat_format:
        raise TokenizerError(
            "this model has no instruct format and cannot chat; continue texts with 'complete --raw', or name a format "
            "with --template"
        )
    if not quiet:
        note(f"chatting with {name}; /help lists the commands, Ctrl-D leaves")


def read_message(read_line: ReadLine) -> str:
    """Return the next message: a line, or all lines between two lines that begin and end with three quotes."""
    line = read_line("> ")
    if not line.lstrip().startswith(QUOTES):
        return line
    lines = [line.lstrip()[len(QUOTES) :]]
    with suppress(EOFError):  # what there is, is the message
        while not lines[-1].rstrip().endswith(QUOTES):
            lines.append(read_line("… "))
    lines[-1] = lines[-1].rstrip().removesuffix(QUOTES)
    return "\n".join(lines).strip("\n")


def line_reader(history: Path | None) -> ReadLine:
    """Return how lines are read: edited and remembered on a terminal, plainly from a pipe."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _read_plain
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("c-c")
    def clear_or_leave(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    if history is not None:
        history.parent.mkdir(parents=True, exist_ok=True)
        history.touch(mode=0o600)
        history.chmod(0o600)
    remembered = FileHistory(str(history)) if history else InMemoryHistory()
    prompt: PromptSession[str] = PromptSession(history=remembered, key_bindings=keys)
    return prompt.prompt


def _read_plain(prompt: str) -> str:
    line = sys.stdin.buffer.readline()
    if not line:
        raise EOFError
    return line.decode("utf-8", errors="replace").rstrip("\r\n")


@contextmanager
def _interrupts(*, at_once: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """Give a function that says whether Ctrl-C was pressed inside; it raises Interrupted while `at_once` is true."""
    pressed: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if at_once():
            raise Interrupted(number)
        pressed.append(number)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(frozen=True)
class Command:
    """A slash command: its line of help, and what it does with the rest of the line."""

    help: str
    do: Callable[[Chat, str], None]


def _help(chat: Chat, rest: str) -> None:
    for name, command in COMMANDS.items():
        print(f"  /{name:8}{command.help}", file=sys.stderr)
    print(
        f"  {QUOTES} begins and ends a message of several lines; Ctrl-C stops an answer, Ctrl-D leaves", file=sys.stderr
    )


def _exit(chat: Chat, rest: str) -> None:
    raise Leave


def _clear(chat: Chat, rest: str) -> None:
    chat.session.clear()
    chat.said_wrapped = chat.said_untrained = False
    chat.say("the conversation is cleared")


COMMANDS = {
    "help": Command("list the commands", _help),
    "clear": Command("forget the conversation; the system prompt stays", _clear),
    "exit": Command("leave", _exit),
}
