"""Which session a chat goes on with, and which model opens it; nothing is loaded for that."""

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from mistral_mlx.cli.models import registry
from mistral_mlx.errors import MistralMLXError, ModelError, OptionError, SessionError, shown

from .store import Store

if TYPE_CHECKING:
    from mistral_mlx.session.saved_document import SavedInfo


def chosen(store: Store, name: str | None, model: str | None) -> tuple[str, str]:
    """Return the session to go on with, and its model: both as they were given, or else the newest, and its own.

    Raises OptionError if there is no such session, SessionError if it is damaged, ModelError if the model is gone.
    """
    if name is None and model is not None:
        return _newest_with(store, model), model
    name = store.existing(name)
    return name, model or model_of(store.info(name))


def model_of(info: "SavedInfo") -> str:
    """Return what opens the model of a session: its name if that still leads to a model, or else its folder.

    Raises ModelError, which names the session and the model, if the model is gone.
    """
    folder = folder_of(info.model)
    if folder and (info.folder in (None, folder) or info.model in registry.registered()):
        return info.model
    if info.folder and os.path.isdir(info.folder):
        return info.folder
    where = f" ({shown(info.folder, limit=200)})" if info.folder and info.folder != info.model else ""
    raise ModelError(
        f"the session {shown(info.name)} was saved with the model {shown(info.model, limit=200)}{where}, which is gone"
        f"; name a copy of it with --model, or read the text: mistral-mlx sessions show {shown(info.name)}"
    )


def folder_of(model: str) -> str | None:
    """Return the absolute folder of a model; None if there is none."""
    with suppress(MistralMLXError):
        return str(registry.resolve(model).resolve()) if model else None
    return None


def _newest_with(store: Store, model: str) -> str:
    """Return the newest session of `model`. Raises OptionError if there is none, ModelError if there is no model."""
    folder, last = str(registry.resolve(model).resolve()), None
    for name in store.names():
        with suppress(SessionError):
            info = store.info(name)
            if info.model == model or folder == (info.folder or folder_of(info.model)):
                return name
            last = last or info
    if last is None:
        return store.existing(None)
    raise OptionError(
        f"no session is saved with {shown(model, limit=200)}; the last one, {shown(last.name)}, is with "
        f"{shown(last.model, limit=200)}"
    )
