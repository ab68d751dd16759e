"""Talks to a session, saves it, and loads it as another process does."""

from helpers.models import LetterTokenizer, tiny_model
from helpers.session_steps import TEXTS, check

from mistral_mlx.model.cache_options import DEFAULT
from mistral_mlx.session.saved import load

SETTINGS = {"model": "tiny", "temperature": 0.5, "stop": ["a", "b"], "seed": None}


def talk(session, n=3):
    for text in TEXTS[:n]:
        check(session, "ask", text)
    return session


def reload(session, path, choice=DEFAULT, **options):
    """Return the saved session as another process finds it: with the same model, read anew, and a choice of cache."""
    windows = list(session.model.args.trained_windows)
    limit = session.model.args.max_position_embeddings
    model = tiny_model(choice=choice, sliding_window=windows, max_position_embeddings=limit)[0]
    return load(path, model, LetterTokenizer(), **options)[0]


def caches(path):
    return sorted(path.parent.glob("*.safetensors"))
