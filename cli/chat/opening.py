"""Opens a chat's model and session, new or resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mistral_mlx.cli.models import registry
from mistral_mlx.errors import TokenizerError, shown
from mistral_mlx.model.cache_options import DEFAULT, CacheOptions

from .settings import ChatOptions
from .store import Store

if TYPE_CHECKING:
    from mistral_mlx.cli.terminal.notes import Notes
    from mistral_mlx.generation.drafts import Drafter
    from mistral_mlx.model.mistral import Mistral
    from mistral_mlx.prompt.official import SystemContent
    from mistral_mlx.session.kept import KeptPrompts
    from mistral_mlx.session.session import Session
    from mistral_mlx.tokenizer.choose import Tokenizer


class Opened(NamedTuple):
    """A session, the name of its model, and the settings saved with it."""

    session: Session
    model: str
    settings: dict[str, object]
    drafter: Drafter | None = None


@dataclass(frozen=True)
class Opener:
    """How models are opened; `name` is shown until `model` is loaded."""

    model: str
    device: str
    threads: int
    exact: bool
    ignore_memory: bool
    notes: Notes
    draft_model: str | None = None
    cache: CacheOptions = DEFAULT
    pipeline: bool = False

    @property
    def name(self) -> str:
        return shown(self.model)

    def use_machine(self, notes: Notes) -> None:
        from mistral_mlx.cli.models.opening import use_machine

        use_machine(self.device, self.threads, notes, exact=self.exact)

    def open(self, name: str) -> tuple[Mistral, Tokenizer]:
        """Return the model `name` and its tokenizer."""
        from mistral_mlx.cli.models.opening import open_model

        return open_model(
            registry.resolve(name),
            self.notes,
            cache=self.cache,
            ignore_memory=self.ignore_memory,
            pipeline=self.pipeline,
        )

    def with_drafter(self, opened: Opened) -> Opened:
        """Return what was opened with the model that drafts for it. Raises OptionError if its tokens are others."""
        from mistral_mlx.cli.models.opening import open_drafter

        tokenizer = opened.session.tokenizer
        drafter = open_drafter(self.draft_model, tokenizer, self.notes, ignore_memory=self.ignore_memory)
        return opened._replace(drafter=drafter)


@dataclass(frozen=True)
class ChatSetup:
    """The options of a chat and where it is saved. `resumes` names the session that it continues."""

    opener: Opener
    store: Store
    settings: ChatOptions
    given: frozenset[str] = frozenset()  # settings from the command line, which no saved session overrides
    system: str | None = None
    template: str | None = None
    resumes: str | None = None
    kept: Callable[[], KeptPrompts] | None = None  # None: no prompts are kept


def open_session(setup: ChatSetup) -> Opened:
    """Open the model, and return the session of `setup`.

    Raises OptionError, ModelError or SessionError; TokenizerError if the model has no chat format.
    """
    opener = setup.opener
    opener.use_machine(opener.notes)
    if setup.resumes:
        name = opener.model
        opened = load_session(setup.store, setup.resumes, name, opener.open(name), template=setup.template)
        if setup.system is not None:
            opened.session.set_system(system_of(setup.system, name, opened.session))
        return opener.with_drafter(opened)
    from mistral_mlx.session.session import Session

    model, tokenizer = opener.open(opener.model)
    _check_chats(tokenizer, setup.template)
    effort = setup.settings.reasoning_effort or None
    session = Session(model, tokenizer, template=setup.template, reasoning_effort=effort)
    session.set_system(system_of(setup.system, opener.model, session))
    return opener.with_drafter(Opened(session, opener.model, {}))


def system_of(text: str | None, model: str, session: Session) -> SystemContent | None:
    """Return the system prompt that `text` means, which may be the one of the model. Raises OptionError."""
    from mistral_mlx.prompt.official import system_of as meaning

    return meaning(text, registry.resolve(model), session.tokenizer, session.template)


def offer(opened: Opened) -> str | None:
    """Return the remark that the model comes with a system prompt, if it does and there is none."""
    from mistral_mlx.files.folder import ModelFolder
    from mistral_mlx.prompt.official import NAME, OFFICIAL, has_official_prompt

    if opened.session.system or not has_official_prompt(ModelFolder(registry.resolve(opened.model))):
        return None
    return f"the model comes with a system prompt ({NAME}), which is not used; /system {OFFICIAL} uses it"


def load_session(
    store: Store, name: str, model_name: str, model: tuple[Mistral, Tokenizer], *, template: str | None = None
) -> Opened:
    """Return the saved session `name`. Raises SessionError if it is damaged or another model's."""
    session, settings = store.load(name, *model, template=template)
    return Opened(session, model_name, settings)


def switch_model(opener: Opener, session: Session, name: str) -> Opened:
    """Return `session` with the model `name`; its answers keep their text, but not the ids of the other model."""
    from mistral_mlx.prompt.encode import chat_format
    from mistral_mlx.prompt.official import spelled
    from mistral_mlx.session.session import Session

    model, tokenizer = opener.open(name)
    _check_chats(tokenizer, None)
    is_understood = chat_format(tokenizer) == "v13"  # chunks of thinking, if the system prompt has any
    switched = Session(model, tokenizer, system=session.system if is_understood else spelled(session.system) or None)
    switched.messages = [
        {key: m[key] for key in ("role", "content", "interrupted") if key in m} for m in session.messages
    ]
    return opener.with_drafter(Opened(switched, name, {}))


def _check_chats(tokenizer: Tokenizer, template: str | None) -> None:
    if template is None and not tokenizer.has_chat_format:
        raise TokenizerError(
            "this model has no chat format and cannot chat; continue texts with 'complete --raw', or name a format "
            "with --template"
        )
