"""The state of a chat: its session, how turns are answered, shown and saved, and the next message's files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mistral_mlx.cli.answers.remarks import statistics
from mistral_mlx.cli.terminal.keyboard import Keyboard
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.streams import write_raw
from mistral_mlx.cli.terminal.thoughts import Thoughts
from mistral_mlx.errors import ContextError, OptionError, shown

from .answering import show_answer, writer
from .attachments import Attachment, with_files
from .background import Background
from .history import recap, show_last_turn
from .input import is_terminal
from .opening import ChatSetup, Opened, load_session, switch_model
from .remarks import Remarks
from .room import in_a_chat
from .saving import Saving
from .session_models import folder_of
from .settings import ChatOptions
from .store import Store

if TYPE_CHECKING:
    from mistral_mlx.constraint.constraint import Constraint
    from mistral_mlx.generation.answer import AnswerOptions
    from mistral_mlx.generation.response import GenerationResponse
    from mistral_mlx.progress import Progress
    from mistral_mlx.sampling.sampler import Sampler
    from mistral_mlx.session.session import Answer, Session
    from mistral_mlx.session.turns import Message


@dataclass
class Chat:
    """A conversation that goes on; `setup` is what it began with, `settings` are those of the next answer."""

    setup: ChatSetup
    loading: Background[Opened]
    settings: ChatOptions
    is_interactive: bool = False
    attachments: list[Attachment] = field(default_factory=list)
    constraint: Constraint | None = None  # what further answers must be
    compacted: tuple[list[Message], list[Message]] | None = None  # the messages before and after the last /compact
    edit: tuple[int, str] | None = None  # the message that the next one replaces, from the end, and its text
    returned: str = ""  # the last message, if it was not answered; it stands in the next prompt
    sampler: Sampler = field(init=False)  # of `settings`, since the model was opened
    last: GenerationResponse | None = None
    waits_for: str = ""  # what goes on before an answer
    remarks: Remarks = field(default_factory=Remarks)
    entered: float = 0.0  # time.perf_counter() at the last Enter
    keyboard: Keyboard = field(default_factory=Keyboard)
    remember: Callable[[str], None] = lambda text: None  # puts a message into the history of the prompt
    status: Callable[[int], str] = lambda columns: ""  # the row below an answer that is written, for so many cells
    _folder: str | None = None  # of the model
    _is_again: bool = False  # the answer that is written replaces another one
    _opened: Opened | None = None

    def __post_init__(self) -> None:
        self.saving = Saving(self.store, self.notes)

    @property
    def store(self) -> Store:
        """Where the conversation is saved."""
        return self.setup.store

    @property
    def notes(self) -> Notes:
        """Where remarks and errors go."""
        return self.setup.opener.notes

    @property
    def opened(self) -> Opened:
        """The session and its model's name; waits for the model. Raises what opening it raised."""
        if self._opened is None:
            self._take(self.loading.result())
            self.setup.opener.use_machine(Notes(quiet=True))  # MLX and its streams know a device for each thread
        assert self._opened is not None
        return self._opened

    @property
    def loaded(self) -> Session | None:
        """The session if it is there already; None while the model loads, or if it cannot be loaded."""
        return self.session if self._opened or (self.loading.ended and not self.loading.error) else None

    @property
    def session(self) -> Session:
        return self.opened.session

    @property
    def model(self) -> str:
        return self.opened.model

    def ask(self, text: str) -> None:
        """Answer `text` and the attached files; in edit mode they replace the message that is edited.

        A message that gets no answer is `returned`.
        """
        self.returned, edit, is_answered = text, self.edit, False
        try:
            is_answered = self._ask(with_files(text, self.attachments))
        finally:
            if is_answered:
                self.returned, self.attachments = "", []
            elif edit and self.is_interactive:
                self.edit = (edit[0], text)

    def _ask(self, text: str) -> bool:
        session = self.session
        edit, self.edit = self.edit, None
        if edit:
            return self.stream(lambda options: session.edit(edit[0], text, options), text)
        if session.messages or session.ids:
            return self.stream(lambda options: session.ask(text, options), text)
        from .first import first_answer

        return self.stream(lambda o: first_answer(session, text, o, self.setup.kept, self.model), text)

    def stream(
        self,
        start: Callable[[AnswerOptions], Answer],
        text: str | None = None,
        *,
        after: str = "",
        is_again: bool = False,
    ) -> bool:
        """Show the answer that `start` begins, or continues `after` its text, and save the turn.

        `text` is the message that it answers, if it is a new one. An answer that comes again (`is_again`) replaces
        the old one on the disk only when it has come. Returns whether any text came. On a terminal, an empty row is
        before and after the answer.
        """
        self._is_again = is_again
        self._empty_row()
        try:
            return self._stream(start, text, after)
        finally:
            self._empty_row()

    def _empty_row(self) -> None:
        if is_terminal():
            write_raw("\n")

    def _stream(self, start: Callable[[AnswerOptions], Answer], text: str | None, after: str) -> bool:
        is_plain = self.settings.plain or self.constraint is not None  # a bound answer is data
        output = writer(self.status, plain=is_plain, after=after)
        is_quiet = self.notes.quiet
        thoughts = Thoughts(
            hidden=self.settings.reasoning == "hide" or is_quiet, sign=not is_quiet, screen=output.screen
        )
        try:
            last = show_answer(
                lambda progress: start(self._options(progress)),
                output,
                thoughts,
                entered=self.entered,
                on_start=self._begun,
                on_progress=self.wait_for,
                on_piece=self._take_up,
                notes=self.notes,
            )
        except ContextError as error:
            raise in_a_chat(error, self.session, text) from error
        finally:
            self.save()
        if last is None:
            what = "nothing is changed" if text is None else "the message is not in the conversation"
            self.notes.always(f"interrupted before the answer began; {what}")
            return False
        self.last = last  # with the time to the first token from Enter
        self.saving.cache_times.has_read(last.prompt_tokens - last.cached_tokens, last.prompt_tps)
        for remark in self.remarks.after(self.session, last, max_tokens=self.settings.max_tokens):
            self.say(remark)
        if self.constraint is not None and last.finish_reason:
            self._judge(self.constraint, cut=last.finish_reason != "stop")
        if self.settings.stats:
            self.notes.always(statistics(last, self.sampler.seed, last.finish_reason or "interrupt"))
        return True

    def _options(self, progress: Progress) -> AnswerOptions:
        from mistral_mlx.generation.answer import AnswerOptions

        return AnswerOptions(
            sampler=self.sampler,
            max_tokens=self.settings.max_tokens,
            stop=self.settings.stop,
            constraint=self.constraint,
            draft=self.settings.draft,
            drafter=self.opened.drafter,
            progress=progress,
        )

    def _judge(self, constraint: Constraint, *, cut: bool) -> None:
        """Say that the last answer does not fit, if it does not."""
        try:
            constraint.meaning(str(self.session.messages[-1]["content"]), cut=cut)
        except OptionError as error:
            self.notes.always(str(error))

    def save(self) -> None:
        """Save the conversation if it has begun and autosave is on; the first of several errors is printed."""
        self.saving.save(self.session, self.as_saved())

    def as_saved(self) -> dict[str, object]:
        """Return what a session keeps beside its messages."""
        return {**self.settings.as_saved(), "model": self.model, "folder": self._folder}

    def leave(self) -> None:
        """Save what the conversation has that is not on the disk yet."""
        if self._opened is not None:
            self.saving.leave(self.session, self.as_saved())

    def say(self, text: str) -> None:
        """Write a remark, unless the chat is quiet."""
        self.notes.say(text)

    def apply(self, settings: ChatOptions) -> None:
        """Use `settings` for all further answers. Raises OptionError if one is out of range."""
        self.session.set_effort(settings.reasoning_effort or None)
        self.sampler = settings.sampler()
        self.settings, self.notes.is_plain = settings, settings.plain
        self.session.on_overflow = settings.on_overflow
        self.session.schema = None if self.constraint is None else self.constraint.schema

    def bind(self, constraint: Constraint | None) -> None:
        """Have all further answers follow `constraint`, whose schema the prompt tells; None for no constraint."""
        self.constraint = constraint
        self.apply(self.settings)

    def begin_anew(self) -> None:
        """Reset everything that belongs to one conversation; the next one gets a name of its own."""
        self.store.forget()
        self.last = None
        self._forget_remarks()

    def _forget_remarks(self) -> None:
        self.attachments, self.edit, self.compacted, self.remarks = [], None, None, Remarks()

    def resume(self, name: str) -> None:
        """Continue the saved session `name`. Raises SessionError if it is damaged or another model's."""
        self.leave()
        session = self.session
        opened = load_session(self.store, name, self.model, (session.model, session.tokenizer))
        self._take(opened._replace(drafter=self.opened.drafter))
        self._forget_remarks()
        self.recap()

    def recap(self) -> None:
        """Say that a session is resumed, and what was said last: in a line, or on a terminal the whole turn."""
        self.say(recap(self.session, self.model, with_last=not self.is_interactive))
        if self.is_interactive and not self.notes.quiet:
            show_last_turn(self.session, self.notes)

    def switch(self, name: str) -> None:
        """Continue with another model, which reads the conversation again. Raises ModelError if it cannot be opened."""
        opened = switch_model(self.setup.opener, self.session, name)
        efforts, effort = opened.session.tokenizer.efforts, self.settings.reasoning_effort
        if effort and (efforts is None or effort not in efforts.values):
            self.settings = replace(self.settings, reasoning_effort="")
            self.say(f"{shown(name)} has no reasoning_effort {shown(effort)}; it is set back")
        self._take(opened)
        self.compacted = None  # its answers have the ids of the other model
        self.say(f"{shown(name)} goes on with the conversation")
        self.save()

    def _take(self, opened: Opened) -> None:
        self._opened, self._folder = opened, folder_of(opened.model)
        self.apply(self.settings.restored(opened.settings, given=self.setup.given))

    def wait_for(self, what: str) -> None:
        """Take up the keys that were typed while `what` is done, which the line at the bottom tells."""
        self.keyboard.poll()
        self.waits_for = what

    def _take_up(self, response: GenerationResponse) -> None:
        self.wait_for("")
        self.last = response

    def _begun(self) -> None:
        """Save the question before its answer, which may take long or never come."""
        if not self._is_again:
            self.save()
        if n := self.session.dropped_turns:
            self.say(self.remarks.dropped(n))
