"""Scaled rotary positions and queries that grow with their position (Ministral 3), turn by turn and at once."""

import numpy as np
import pytest
from helpers.models import LetterTokenizer, tiny_model
from helpers.saved_sessions import SETTINGS
from helpers.session_steps import TEXTS, WINDOWS, check

from mistral_mlx import Session, make_cache, prefill
from mistral_mlx.session.saved import load, save

ORIGINAL = 16  # positions: the first turn crosses it, and later ones multiples of it
ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 16.0,
    "original_max_position_embeddings": ORIGINAL,
    "mscale": 1.0,
    "mscale_all_dim": 0.0,
    "llama_4_scaling_beta": 0.5,
}


def scaled_model(window, rope=ROPE):
    """Return a tiny Ministral 3 whose layers have `window`, or a window each."""
    return tiny_model(
        model_type="ministral3", sliding_window=window, rope_parameters=rope, max_position_embeddings=4096, head_dim=8
    )[0]


def assert_as_at_once(session):
    """Compare the logits after the last token in the cache with those of all its tokens in one step."""
    at_once = prefill(session.model, session.ids, make_cache(session.model.args))
    np.testing.assert_allclose(np.array(session.timeline.logits), np.array(at_once), atol=2e-3)


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_turn_by_turn_is_at_once_past_the_original_positions_and_the_windows(window, path):
    session = Session(scaled_model(window), LetterTokenizer(), system="be kind")
    for number, text in enumerate(TEXTS):
        check(session, "ask", text, max_tokens=5)
        assert_as_at_once(session)
        if number % 2:
            save(session, path, SETTINGS)
            session, *_ = load(path, scaled_model(window), LetterTokenizer())
            assert session.n_tokens > 0  # the cache was saved too
    assert session.context.used > 6 * ORIGINAL
    check(session, "edit", 3, "why")
    check(session, "continue_answer")
    assert_as_at_once(session)


def test_queries_and_positions_of_this_model_are_scaled():
    """Or the test above would say nothing."""
    ids = [1 + i % 60 for i in range(3 * ORIGINAL)]
    changes = [{}, {"llama_4_scaling_beta": 0.0}, {"factor": 1.0}]
    models = [scaled_model(None, ROPE | change) for change in changes]
    found = [np.array(prefill(model, ids, make_cache(model.args))) for model in models]
    assert np.abs(found[0] - found[1]).max() > 0.1 and np.abs(found[0] - found[2]).max() > 0.1
