"""Saved sessions load as they were, or are refused in one line; a kill loses one answer."""

import json
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import pytest
from helpers.models import LetterTokenizer, Scripted, tiny_model
from helpers.session_steps import GREEDY, TEXTS, WINDOWS, check, new_session, perform, random_step

from mistral_mlx.errors import SessionError
from mistral_mlx.generation.stream import AnswerOptions
from mistral_mlx.session import saved as saved_session
from mistral_mlx.session.saved import list_sessions, load, save

SETTINGS = {"model": "tiny", "temperature": 0.5, "stop": ["a", "b"], "seed": None}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "talk.json"


@pytest.fixture(params=WINDOWS.values(), ids=WINDOWS)
def session(request):
    return new_session(request.param, system="be kind")


def talk(session, n=3):
    for text in TEXTS[:n]:
        check(session, "ask", text)
    return session


def reload(session, path, **options):
    """Return the saved session as another process finds it: with the same model, read anew."""
    windows = list(session.model.args.sliding_window)
    limit = session.model.args.max_position_embeddings
    model = tiny_model(sliding_window=windows, max_position_embeddings=limit)[0]
    return load(path, model, LetterTokenizer(), **options)[0]


def caches(path):
    return sorted(path.parent.glob("*.safetensors"))


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
    saved_session.remove(path)
    assert len(list(path.parent.iterdir())) == 2
    with pytest.raises(SessionError):
        saved_session.remove(path)


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


# What does not belong together


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


# Damage


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 500
    return text


BAD = {
    "format": ["other", None, 3],
    "version": [2, "1", True, None],
    "fingerprints": [None, [], {}],
    "template": [3, "v9"],
    "system": [3, []],
    "settings": [None, []],
    "cache": [3, {}, {"id": "../../etc/passwd", "crc32": 1, "ids": [1]}],
    "messages": [
        None,
        {},
        ["hello"],
        [{"role": "user"}],
        [{"role": "tool", "content": "x"}],
        [{"role": ["user"], "content": "x"}],
        [{"role": "user", "content": 3}],
        [{"role": "user", "content": "x", "ids": [6]}],
        [{"role": "user", "content": "x", "extra": 1}],
        [{"role": "assistant", "content": "a", "interrupted": 1}],
        [{"role": "assistant", "content": "a", "ids": [7]}],
        [{"role": "assistant", "content": "", "ids": []}],
        *([{"role": "assistant", "content": "a", "ids": [bad]}] for bad in (64, -1, True, 6.0, "6", None, 1 << 80)),
    ],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_a_damaged_file_is_refused_in_one_line(path, key, value):
    session = talk(new_session(24), 1)
    save(session, path, SETTINGS)
    document = json.loads(path.read_text())
    document[key] = value
    path.write_text(json.dumps(document))
    with pytest.raises(SessionError) as error:
        reload(session, path)
    one_line(error)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"\xff", b'{"format": 1, "format": 1}', b"[" * 100_000, b'{"version": NaN}']
)
def test_what_is_no_session_is_refused_in_one_line(path, raw):
    path.write_bytes(raw)
    with pytest.raises(SessionError) as error:
        reload(new_session(8), path)
    one_line(error)


def test_what_is_not_there_is_said(path):
    for missing in (path, path.parent):
        with pytest.raises(SessionError, match="no saved session"):
            reload(new_session(8), missing)


@pytest.mark.parametrize("what", ["cut", "longer", "flipped", "empty", "other layers", "other ids"])
def test_a_damaged_cache_is_refused_and_can_be_removed(path, what):
    session = talk(new_session(24))
    save(session, path, SETTINGS)
    file = caches(path)[0]
    raw = file.read_bytes()
    middle = len(raw) // 2
    if what == "other layers":
        mx.save_safetensors(str(file), {"0.keys": mx.zeros((1, 2, 24, 8))})
    elif what == "other ids":
        document = json.loads(path.read_text())
        document["cache"]["ids"] = document["cache"]["ids"][:10]
        path.write_text(json.dumps(document))
    else:
        flipped = raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]
        file.write_bytes({"cut": raw[:-1], "longer": raw + b"x", "flipped": flipped, "empty": b""}[what])
    with pytest.raises(SessionError, match="delete") as error:
        reload(session, path)
    one_line(error)
    file.unlink()
    check(reload(session, path), "ask", "why")


@pytest.mark.parametrize("change", [lambda ids: ids.pop(), lambda ids: ids.append(5), lambda ids: ids.reverse()])
def test_a_cache_is_that_of_its_own_tokens_or_is_refused(session, path, change):
    save(talk(session), path, SETTINGS)
    document = json.loads(path.read_text())
    change(document["cache"]["ids"])
    path.write_text(json.dumps(document))
    with pytest.raises(SessionError, match=r"delete .*, and the conversation is read again"):
        reload(session, path)


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


# Long lives


def test_twenty_turns_with_everything_that_can_happen(session, path):
    """Each answer is compared with a cold run of its transcript; the process ends and begins anew in between."""
    rng = random.Random(2)
    check(session, "ask", TEXTS[0])
    for number in range(20):
        name, args = random_step(session, rng)
        if name == "undo":
            session.undo(*args)
            name, args = "ask", ("so",)
        check(session, name, *args, pieces=rng.choice([None, None, 2]), max_tokens=rng.randint(1, 9))
        save(session, path, SETTINGS, max_cache_bytes=rng.choice([0, 1 << 20]))
        if number % 4 == 3:
            session = reload(session, path)
    assert session.context.used > 48
    check(session, "ask", "why")


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from helpers.session_steps import GREEDY, TEXTS, new_session, perform
from mistral_mlx.generation.stream import AnswerOptions
from mistral_mlx.session.saved import save
import mlx.core as mx
mx.set_default_device(mx.cpu)
session, path = new_session(8), Path(sys.argv[2])
for text in TEXTS[:2]:
    perform(session, "ask", text)
    save(session, path, {})
    for response in session.ask("so", AnswerOptions(sampler=GREEDY, max_tokens=1)):
        print("answering", flush=True)
        if text == TEXTS[1]:
            while True:
                save(session, path, {})
    save(session, path, {})
"""


def test_kill_9_in_the_middle_of_an_answer_loses_only_that_answer(path):
    for wait in (0, 0.01, 0.05):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(Path(__file__).parents[1]), str(path)], stdout=subprocess.PIPE, text=True
        )
        try:
            process.stdout.readline()
            assert process.stdout.readline() == "answering\n"
            time.sleep(wait)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        session = reload(new_session(8), path)
        users = [message["content"] for message in session.messages if message["role"] == "user"]
        answers = [message for message in session.messages if message["role"] == "assistant"]
        assert users[:3] == [TEXTS[0], "so", TEXTS[1]] and len(answers) == 3
        check(session, "ask", "why")
