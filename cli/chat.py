"""``chat``: a conversation in the terminal, or one message a line from a pipe. The loop and its state."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mistral_mlx.errors import MistralMLXError, OptionError, shown

from .answering import show_answer, writer
from .attachments import Attachment, with_files
from .background import Background
from .chat_commands import CONVERSATION, Command, Leave, show
from .chat_files import FILES
from .chat_input import QUOTES, Reader
from .chat_opening import Opened, Opener, load_session, recap, switch_model
from .chat_settings import ChatOptions
from .remarks import statistics, untrained_position
from .saved import Store
from .terminal import Interrupted, note
from .toolbar import Status

if TYPE_CHECKING:
    from mistral_mlx.generation import GenerationResponse
    from mistral_mlx.sampling import Sampler
    from mistral_mlx.session import Answer, Session


def _help(chat: Chat, rest: str) -> None:
    for name, command in COMMANDS.items():
        show(f"  {f'/{name} {command.usage}':<18}{command.help}")
    show(f"  {QUOTES} before and after a message of several lines; Alt-Enter, or a \\ at the end, begins a new line")
    show("  Ctrl-C stops an answer or clears the line, Ctrl-R searches, Tab completes, Ctrl-D leaves")


COMMANDS = {"help": Command("", "list the commands", _help), **CONVERSATION, **FILES}


@dataclass
class Chat:
    """A session, how its turns are run and shown, and what the next message takes with it."""

    loading: Background[Opened]
    opener: Opener
    settings: ChatOptions
    store: Store
    given: frozenset[str] = frozenset()  # settings from the command line, which no saved session overrides
    quiet: bool = False
    is_interactive: bool = False
    attachments: list[Attachment] = field(default_factory=list)
    edit: tuple[int, str] | None = None  # the message that the next one replaces, from the end, and its text
    sampler: Sampler = field(init=False)  # of `settings`, since the model was opened
    last: GenerationResponse | None = None
    n_dropped: int = 0  # turns
    said_wrapped: bool = False
    said_untrained: bool = False
    entered: float = 0.0  # when the last message was
    _opened: Opened | None = None

    @property
    def opened(self) -> Opened:
        """The session and its model's name; waits for the model. Raises what opening it raised."""
        if self._opened is None:
            self._take(self.loading.result())
            self.opener.use_device()  # MLX and its streams know a device for each thread
        assert self._opened is not None
        return self._opened

    @property
    def session(self) -> Session:
        return self.opened.session

    @property
    def model(self) -> str:
        return self.opened.model

    def run(self, reader: Reader) -> MistralMLXError | None:
        """Read messages and answer them until the input ends or Ctrl-C comes twice; return the last error.

        Raises what opening the model raised.
        """
        n_interrupts, failed = 0, None
        while n_interrupts < 2:
            try:
                text = reader.read(self.edit[1] if self.edit else "")
                n_interrupts = 0
                with self._may_be_interrupted():
                    self.handle(text)
            except KeyboardInterrupt:
                n_interrupts += 1
                self.edit = None
                if n_interrupts == 1:
                    self.say("Ctrl-C again, or Ctrl-D, leaves")
            except (EOFError, Leave):
                break
            except MistralMLXError as error:
                if error is self.loading.error:
                    raise
                note(f"error: {error}")
                failed = error
        return failed

    def handle(self, text: str) -> None:
        """Answer a message, or do what a slash command says. Raises OptionError for an unknown command."""
        self.entered = time.perf_counter()
        if not text.strip():
            return
        if text.startswith("/"):
            name, _, rest = text[1:].strip().partition(" ")
            if name not in COMMANDS:
                raise OptionError(
                    f"there is no command /{shown(name)}; /help lists them (a message cannot begin with a slash; put a "
                    "space before it)"
                )
            COMMANDS[name].do(self, rest.strip())
        else:
            self.ask(text)

    def ask(self, text: str) -> None:
        """Answer `text` with the files that go with it, in place of the message that is edited, if one is."""
        session, text = self.session, with_files(text, self.attachments)
        edit, self.edit = self.edit, None
        if edit:
            n = edit[0]
            is_answered = self.stream(lambda **options: session.edit(n, text, **options))
        else:
            is_answered = self.stream(lambda **options: session.ask(text, **options))
        if is_answered:
            self.attachments = []

    def stream(self, start: Callable[..., Answer]) -> bool:
        """Show the answer that `start` begins, and save the turn; return whether there is any."""
        try:
            last = show_answer(
                lambda on_prefill: start(
                    sampler=self.sampler,
                    max_tokens=self.settings.max_tokens,
                    stop=self.settings.stop,
                    on_prefill=on_prefill,
                ),
                writer(plain=self.settings.plain),
                entered=self.entered,
                on_start=self._begun,
                quiet=self.quiet,
            )
        finally:
            self.save()
        if last is None:
            note("interrupted before the answer began; the message was not kept")
            return False
        self.last = last
        self._remark(last.finish_reason)
        if self.settings.stats:
            note(statistics(last, self.sampler.seed, last.finish_reason or "interrupt"))
        return True

    def save(self) -> None:
        """Save the conversation if that is wanted and it has begun; what goes wrong is said and nothing more."""
        if self.store.autosave and (self.store.name or self.session.transcript):
            try:
                self.store.save(self.session, self.saved_settings())
            except MistralMLXError as error:
                note(f"error: {error}")

    def saved_settings(self) -> dict[str, object]:
        return {**self.settings.as_saved(), "model": self.model}

    def say(self, text: str) -> None:
        """Write a remark, unless the chat is quiet."""
        if not self.quiet:
            note(text)

    def apply(self, settings: ChatOptions) -> None:
        """Make `settings` those of all further answers. Raises OptionError if one is out of range."""
        self.sampler = settings.sampler()
        self.settings = settings
        self.session.on_overflow = settings.on_overflow

    def begin_anew(self) -> None:
        """Forget what was said of a conversation; the next one is saved under a name of its own."""
        self.store.name = None
        self.attachments, self.edit, self.n_dropped = [], None, 0
        self.said_wrapped = self.said_untrained = False

    def resume(self, name: str) -> None:
        """Go on with the saved session `name`. Raises SessionError if it is damaged or another model's."""
        session = self.session
        self._take(load_session(self.store, name, self.model, (session.model, session.tokenizer)))
        self.begin_anew()
        self.store.name = name
        self.say(recap(self.opened))

    def switch(self, name: str) -> None:
        """Go on with another model, which reads the conversation anew. Raises ModelError if it cannot be opened."""
        self._take(switch_model(self.opener, self.session, name))
        self.say(f"{shown(name)} goes on with the conversation")
        self.save()

    def status(self) -> Status:
        """Return what the toolbar shows."""
        sampling, n_files = self.settings.short(), len(self.attachments)
        if not self.loading.ended or self.loading.error:
            return Status(self.opener.name, state="loading", sampling=sampling, n_files=n_files)
        use = self.session.context
        speed = self.last.generation_tps if self.last else None
        return Status(self.model, "", use.used, use.limit, use.is_window, speed, sampling, n_files)

    def _take(self, opened: Opened) -> None:
        self._opened = opened
        self.apply(self.settings.restored(opened.settings, given=self.given))

    def _begun(self) -> None:
        """The question is saved before its answer, which may take long or never come."""
        self.save()
        if n := self.session.dropped_turns:
            self.n_dropped += n
            self.say(f"the context is full: the oldest {'turn was' if n == 1 else f'{n} turns were'} dropped")

    def _remark(self, reason: str | None) -> None:
        args, n_tokens = self.session.model.args, self.session.n_tokens
        if reason is None:
            self.say("interrupted; the part above stays in the conversation, and /continue goes on with it")
        elif reason == "length":
            self.say(f"stopped at {self.settings.max_tokens} tokens (--max-tokens); /continue goes on")
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

    @contextmanager
    def _may_be_interrupted(self) -> Iterator[None]:
        """On a terminal, Ctrl-C leads back to the prompt, also while the model is loading."""
        try:
            yield
        except Interrupted as interrupt:
            if interrupt.number != signal.SIGINT or not self.is_interactive:
                raise
            note("interrupted; the message was not sent")
