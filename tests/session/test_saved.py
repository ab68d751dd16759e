"""Saved sessions load as they were, or refuse another model, tokenizer or template."""

import json
import os
import re
import stat
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from helpers.models import LetterTokenizer, Scripted, tiny_config, tiny_model, tiny_weights, write_folder
from helpers.saved_sessions import SETTINGS, caches, reload, talk
from helpers.session_steps import GREEDY, TEXTS, check, new_session, perform

from mistral_mlx.errors import SessionError
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.cache_options import DEFAULT, CacheOptions
from mistral_mlx.model.loading import inspect_model, load_model
from mistral_mlx.session import saved as saved_session
from mistral_mlx.session import saved_cache
from mistral_mlx.session.fingerprint import folder_fingerprint, model_fingerprint
from mistral_mlx.session.saved import load, save
from mistral_mlx.session.saved_document import list_sessions
from mistral_mlx.session.saved_files import remove


def test_what_is_loaded_is_what_was_saved(session, path):
    talk(session)
    perform(session, "ask", "so", pieces=1)
    save(session, path, SETTINGS)
    other = reload(session, path)
    assert (other.messages, other.system) == (session.messages, "be kind")
    assert load(path, session.model, session.tokenizer)[1] == SETTINGS
    assert (other.ids, other.wrapped, other.context) == (session.ids, session.wrapped, session.context)
    for name, *args in (("continue_answer",), ("ask", "why"), ("retry",), ("edit", 2, "else")):
        assert check(other, name, *args) == perform(session, name, *args)


def test_the_cache_saves_the_prefill(path):
    session = talk(new_session(24))
    save(session, path, SETTINGS)
    assert next(reload(session, path).ask("why", AnswerOptions(sampler=GREEDY))).cached_tokens == session.n_tokens


def test_a_cache_over_the_limit_is_not_saved_and_read_again(session, path):
    talk(session)
    save(session, path, SETTINGS, max_cache_bytes=100)
    assert caches(path) == []
    other = reload(session, path)
    assert other.n_tokens == 0
    check(other, "ask", "why")


def test_a_missing_cache_costs_a_prefill_and_nothing_else(session, path):
    save(talk(session), path, SETTINGS)
    caches(path)[0].unlink()
    check(reload(session, path), "ask", "why")


def test_a_cache_of_other_kernels_is_not_used(path, monkeypatch):
    session = talk(new_session(24))
    save(session, path, SETTINGS)
    monkeypatch.setattr(saved_session, "computed_by", lambda: "others")
    other = reload(session, path)
    assert other.n_tokens == 0
    check(other, "ask", "why")


def test_a_cache_of_another_layout_is_not_used(path, monkeypatch):
    """A ring used to have no more slots than its window."""
    session = talk(new_session(24))
    monkeypatch.setattr(saved_cache, "LAYOUT", "1")
    save(session, path, SETTINGS)
    monkeypatch.undo()
    other = reload(session, path)
    assert other.n_tokens == 0
    check(other, "ask", "why")


@pytest.mark.parametrize("n_back", [0, 50, 105])
def test_a_ring_that_went_back_is_saved_with_what_it_has_overwritten(path, n_back):
    """A ring for 24 tokens has 128 slots, and goes back 105 tokens."""
    session = new_session(24)
    check(session, "ask", "x" * 200)
    for layer in session.cache:
        layer.trim(n_back)
    del session.ids[len(session.ids) - n_back :]
    save(session, path, SETTINGS)
    other = reload(session, path)
    assert [layer.reserved for layer in other.cache] == [layer.reserved for layer in session.cache]
    assert [layer.can_trim(105 - n_back) for layer in other.cache] == [True, True]
    assert [layer.can_trim(106 - n_back) for layer in other.cache] == [False, False]


@pytest.mark.parametrize("reserved", [5, 900, None, "206"])
def test_a_cache_that_cannot_hold_what_it_says_is_refused(path, reserved):
    session = new_session(24)
    check(session, "ask", "x" * 200)
    session.cache[0].reserved = reserved
    save(session, path, SETTINGS)
    with pytest.raises(SessionError, match="what its rings hold"):
        reload(session, path)


def test_an_empty_session_is_one_too(path):
    session = new_session(8)
    save(session, path, {})
    assert reload(session, path).messages == []


def test_files_are_for_their_owner_and_old_caches_go(path):
    session = new_session(8)
    other = path.with_name("talk.json.other.json")
    save(talk(session, 1), other, SETTINGS)
    for text in TEXTS:
        check(session, "ask", text)
        save(session, path, SETTINGS)
    assert len(caches(path)) == 2  # one each
    assert {stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()} == {0o600}
    assert len(list(path.parent.iterdir())) == 4
    remove(path)
    assert len(list(path.parent.iterdir())) == 2
    with pytest.raises(SessionError):
        remove(path)


def test_a_list_of_sessions_has_the_newest_first(tmp_path):
    session = new_session(8)
    for n, name in enumerate(("one", "two", "three"), start=1):
        session.clear()
        save(talk(session, n), tmp_path / f"{name}.json", {**SETTINGS, "model": f"model {n}"})
    (tmp_path / "foreign.json").write_text("{}")
    (tmp_path / "broken.json").write_text("{")
    dated = json.loads((tmp_path / "one.json").read_text()) | {"saved_at": "0001-01-01T00:00:00+00:00"}
    (tmp_path / "dated.json").write_text(json.dumps(dated))  # which no time zone west of Greenwich can show
    found = [(info.name, info.path, info.model, info.turns) for info in list_sessions(tmp_path)]
    assert found == [
        (name, tmp_path / f"{name}.json", f"model {n}", n) for n, name in ((3, "three"), (2, "two"), (1, "one"))
    ]
    assert list_sessions(tmp_path / "nowhere") == []


def test_a_save_that_fails_leaves_the_old_session(path, monkeypatch):
    session = talk(new_session(24), 1)
    save(session, path, SETTINGS)
    before = {p: p.read_bytes() for p in path.parent.iterdir()}
    check(session, "ask", "why")
    for place, name in ((os, "fsync"), (Path, "replace")):
        for problem, shown in ((OSError(28, "No space left"), SessionError), (KeyboardInterrupt(), KeyboardInterrupt)):

            def fail(*args, problem=problem):
                raise problem

            with monkeypatch.context() as patch:
                patch.setattr(place, name, fail)
                with pytest.raises(shown):
                    save(session, path, SETTINGS)
            assert {p: p.read_bytes() for p in path.parent.iterdir()} == before
    with pytest.raises(SessionError, match="cannot be saved"):
        save(session, path.parent / "nowhere" / "talk.json", SETTINGS)


def test_a_question_that_waits_for_its_answer_is_saved_without_one(session, path):
    talk(session, 2)
    stream = session.ask("so", AnswerOptions(sampler=GREEDY))
    next(stream)
    save(session, path, SETTINGS)
    stream.close()
    other = reload(session, path)
    assert other.messages == [*session.messages[:4], {"role": "user", "content": "so"}]
    check(other, "retry")
    check(other, "ask", "why")


def changed(**config):
    return tiny_model(sliding_window=24, max_position_embeddings=4096, **config)[0]


def test_another_model_tokenizer_or_template_is_refused(path):
    session = talk(new_session(24))
    save(session, path, SETTINGS)
    reload(session, path)
    other_values, other_config = changed(seed=1), changed(rope_theta=20000.0)
    for model in (other_values, other_config):
        with pytest.raises(SessionError, match="another model"):
            load(path, model, LetterTokenizer())
    spoken = LetterTokenizer()
    spoken.LETTERS = spoken.LETTERS[::-1]
    with pytest.raises(SessionError, match="another tokenizer"):
        load(path, changed(), spoken)
    with pytest.raises(SessionError, match="another chat template"):
        load(path, changed(), LetterTokenizer(), template="v1")


def test_the_template_is_saved_too(path):
    session = new_session(24, template="v2")
    check_v2 = perform(session, "ask", "why")
    save(session, path, SETTINGS)
    other = reload(session, path)
    assert other.template == "v2"
    assert perform(other, "retry") == check_v2


def test_an_answer_without_text_can_be_saved(path):
    session = new_session(24)
    list(session.ask("why", AnswerOptions(sampler=Scripted([2]))))
    save(session, path, SETTINGS)
    other = reload(session, path)
    assert other.messages[-1] == {"role": "assistant", "content": ""}
    check(other, "continue_answer")


def test_fingerprints_stay_the_same():
    first, second = new_session(24), new_session(24)
    assert first.fingerprints == second.fingerprints
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in vars(first.fingerprints).values())


def test_fields_that_came_later_leave_the_fingerprint_of_other_models_alone():
    """It is what the version before scaled rotary positions gave."""
    assert new_session(24).fingerprints.model == "873c91a89b3e0175352d71a9325de79d484b579ac8219745d3127cd18fd8cdda"


CHOICES = [CacheOptions(6, 2), CacheOptions(6, 2, 8), CacheOptions(kv_bits=8)]


@pytest.mark.parametrize("choice", CHOICES)
def test_a_chosen_cache_is_saved_and_found_again(path, choice):
    session = talk(new_session(24, choice=choice))
    save(session, path, SETTINGS)
    other = reload(session, path, choice=choice)
    assert (other.ids, other.n_tokens) == (session.ids, session.n_tokens)
    assert perform(other, "ask", "why") == perform(session, "ask", "why")


@pytest.mark.parametrize(("saved", "opened"), [*permutations([DEFAULT, *CHOICES], 2)])
def test_a_session_opens_with_another_choice_of_its_cache_and_is_read_anew(path, saved, opened):
    session = talk(new_session(24, choice=saved))
    save(session, path, SETTINGS)
    other = reload(session, path, choice=opened)
    assert (other.messages, other.n_tokens) == (session.messages, 0)


@pytest.mark.parametrize("choice", [DEFAULT, *CHOICES])
def test_a_cache_that_names_no_choice_is_the_one_of_the_config(path, monkeypatch, choice):
    """Files of before had none to name."""
    session = talk(new_session(24))
    header = saved_cache.header_bytes

    def without_rings(entries, metadata):
        return header(entries, {key: value for key, value in metadata.items() if key != "rings"})

    monkeypatch.setattr(saved_cache, "header_bytes", without_rings)
    save(session, path, SETTINGS)
    assert (reload(session, path, choice=choice).n_tokens > 0) == (choice == DEFAULT)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_folder_has_the_fingerprint_of_the_model_that_is_loaded_from_it(tmp_path, dtype):
    args = ModelArgs.from_config(tiny_config())
    folder = write_folder(tmp_path / "model", tiny_config(), tiny_weights(args, dtype=dtype))
    inspected = inspect_model(ModelFolder(folder))
    assert folder_fingerprint(inspected) == model_fingerprint(load_model(inspected))
