"""A cache on the disk may be older than its text: it is kept while it is of use, and never leads to another answer."""

import os

import pytest
from helpers.models import LetterTokenizer, tiny_model
from helpers.saved_sessions import SETTINGS, caches, reload, talk
from helpers.session_steps import GREEDY, WINDOWS, check, new_session, perform

from mistral_mlx import Session
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.session.saved import load, save
from mistral_mlx.session.saved_document import read_info
from mistral_mlx.session.saved_files import make_room, remove_caches, rename

STEPS = [[("ask", "so")], [("retry",)], [("edit", 2, "else")], [("undo", 2), ("ask", "why")], [("continue_answer",)]]


@pytest.mark.parametrize("steps", STEPS, ids=lambda steps: steps[0][0])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_an_older_cache_gives_the_answers_of_a_cold_run(path, window, steps):
    session = talk(new_session(window))
    last = save(session, path, SETTINGS)
    for name, *args in steps:
        getattr(session, name)(*args) if name == "undo" else check(session, name, *args)
    assert save(session, path, SETTINGS, has_new_cache=False, last=last) is last
    assert read_info(path).cache_nbytes == caches(path)[0].stat().st_size > 0
    for name, *args in (("ask", "why"), ("retry",), ("edit", 2, "go on")):
        check(reload(session, path), name, *args)


def test_a_text_without_a_new_cache_writes_none_and_says_what_it_lacks(path):
    session = talk(new_session(24), 1)
    assert save(session, path, SETTINGS, has_new_cache=False) is None
    assert caches(path) == []
    last = save(session, path, SETTINGS)
    n, before = session.n_tokens, caches(path)
    check(session, "ask", "why")
    save(session, path, SETTINGS, has_new_cache=False, last=last)
    assert (caches(path), last.n_missing(session)) == (before, session.n_tokens - n)
    loaded = load(path, session.model, session.tokenizer)
    assert (loaded.cache, loaded.session.n_tokens) == (last, n)


def test_while_an_answer_is_given_the_last_cache_stays(path):
    session = talk(new_session(24), 1)
    last = save(session, path, SETTINGS)
    stream = session.ask("so", AnswerOptions(sampler=GREEDY))
    next(stream)
    assert save(session, path, SETTINGS, last=last) is last
    check(reload(session, path), "retry")
    stream.close()


def test_the_cache_of_another_model_goes(path):
    """With the shapes of the other model it would be taken for its own."""
    session = talk(new_session(24), 1)
    last = save(session, path, SETTINGS)
    other = Session(tiny_model(sliding_window=24, max_position_embeddings=4096, seed=1)[0], LetterTokenizer())
    other.messages = [{key: m[key] for key in ("role", "content")} for m in session.messages]
    perform(other, "ask", "so")
    assert last.n_missing(other) == other.n_tokens
    assert save(other, path, SETTINGS, has_new_cache=False, last=last) is None
    assert caches(path) == []


def test_a_cache_that_is_gone_is_not_named(path):
    session = talk(new_session(24), 1)
    last = save(session, path, SETTINGS)
    assert remove_caches(path) > 0
    assert save(session, path, SETTINGS, has_new_cache=False, last=last) is None
    assert (read_info(path).cache_nbytes, reload(session, path).n_tokens) == (0, 0)


def test_a_cache_that_is_too_large_is_told_and_the_smaller_one_of_before_stays(path):
    session = talk(new_session(24), 1)
    last = save(session, path, SETTINGS)
    check(session, "ask", "why")
    assert save(session, path, SETTINGS, last=last, max_cache_bytes=100) is last
    assert (read_info(path).unkept_nbytes or 0) > 100
    check(reload(session, path), "ask", "so")
    save(session, path, SETTINGS)
    assert read_info(path).unkept_nbytes is None


def test_the_oldest_caches_make_room_and_texts_stay(tmp_path):
    session = talk(new_session(24), 1)
    paths = [tmp_path / f"{name}.json" for name in "abc"]
    for n, path in enumerate(paths):
        save(session, path, SETTINGS)
        os.utime(caches(path)[n], (n, n))
    (tmp_path / "a.json.other.safetensors").write_bytes(b"x" * 1000)  # no cache of ours
    nbytes = read_info(paths[0]).cache_nbytes
    make_room(tmp_path, 2 * nbytes, keep=paths[0])
    assert [read_info(path).cache_nbytes > 0 for path in paths] == [True, False, True]
    make_room(tmp_path, 0, keep=paths[0])
    assert [read_info(path).cache_nbytes > 0 for path in paths] == [True, False, False]
    assert (tmp_path / "a.json.other.safetensors").exists()
    check(reload(session, paths[1]), "ask", "why")


def test_a_new_name_takes_the_cache_along(path):
    session = talk(new_session(24), 1)
    save(session, path, SETTINGS)
    rename(path, new := path.with_name("new.json"))
    assert not path.exists() and len(caches(path)) == 1
    other = reload(session, new)
    assert other.ids == session.ids
    check(other, "ask", "why")
