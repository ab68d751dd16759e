"""After a summary took the place of the oldest turns, each answer is that of a cold run over what is left."""

import random

import pytest
from helpers.models import Scripted, interrupting
from helpers.session_steps import GREEDY, TEXTS, WINDOWS, check, cold, new_session, random_step

from mistral_mlx.errors import ContextError
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.session import compact as compacting
from mistral_mlx.session.compact import Compaction
from mistral_mlx.session.saved import load, save
from mistral_mlx.session.turns import count_turns, user_message

REQUEST, BEGINS, TAKEN_UP, CUT = "sum it up ", "the sum ", "read", " cut "


@pytest.fixture(autouse=True)
def _of_letters(monkeypatch):
    """The tokenizer of these models has letters only."""
    for name in ("REQUEST", "BEGINS", "TAKEN_UP", "CUT"):
        monkeypatch.setattr(compacting, name, globals()[name])


def options(n=5):
    return AnswerOptions(sampler=GREEDY, max_tokens=n)


def compact(session, n_kept=2, *, max_tokens=5):
    """Compact `session`, and return the pieces of the summary; those of several parts behind each other."""
    compaction = Compaction.of(session, n_kept)
    pieces = list(compaction.summarize(options(max_tokens)))
    session.messages = compaction.result
    return pieces


def test_the_oldest_turns_become_a_summary_and_the_last_stay(session):
    for text in TEXTS[:4]:
        check(session, "ask", text)
    before = list(session.messages)
    asked = [*before[:4], user_message(REQUEST)]
    pieces = compact(session)
    assert [piece.token for piece in pieces] == cold(session, asked, len(pieces))
    summary, sign, *kept = session.messages
    assert summary == user_message(BEGINS + "".join(piece.text for piece in pieces).strip())
    assert sign == {"role": "assistant", "content": TAKEN_UP}
    assert kept == before[4:] and session.system == "be kind"
    check(session, "ask", "why")
    session.messages = before
    check(session, "ask", "why")


def test_the_summary_reads_again_only_the_request():
    session = new_session(None)
    for text in TEXTS[:3]:
        check(session, "ask", text)
    pieces = compact(session, 0)
    assert pieces[0].prompt_tokens - pieces[0].cached_tokens < len(REQUEST) + 8


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_twenty_steps_with_compactions_that_stay_or_are_taken_back(window, path):
    rng, session = random.Random(5), new_session(window, system="be kind")
    check(session, "ask", TEXTS[0])
    for number in range(20):
        before = list(session.messages)
        if number % 3 == 2 and Compaction.of(session, number % 2):
            compact(session, number % 2, max_tokens=rng.randint(1, 6))
            session.messages = rng.choice([before, session.messages])
        name, args = random_step(session, rng)
        if name == "undo":
            session.undo(*args)
            name, args = "ask", ("so",)
        check(session, name, *args, pieces=rng.choice([None, 2]), max_tokens=rng.randint(1, 9))
        if number % 5 == 4:
            save(session, path, {})
            session = load(path, session.model, session.tokenizer)[0]


@pytest.mark.parametrize("n_turns", [0, 1, 2])
def test_there_is_nothing_to_do_before_the_turns_that_stay(n_turns):
    session = new_session(None)
    for text in TEXTS[:n_turns]:
        check(session, "ask", text)
    assert Compaction.of(session, 2) is None


def test_a_summary_alone_is_not_summarized_again_but_with_turns_it_is():
    session = new_session(None)
    for text in TEXTS[:3]:
        check(session, "ask", text)
    compact(session)
    assert Compaction.of(session, 2) is None
    compact(session, 1)
    assert count_turns(session.messages) == 2 and session.messages[0]["content"].count(BEGINS) == 1


def test_a_message_without_an_answer_is_kept():
    session = new_session(None)
    check(session, "ask", "one")
    session.messages.append(user_message("lost"))
    compact(session, 0)
    assert [message["content"] for message in session.messages[1:]] == [TAKEN_UP, "lost"]
    check(session, "retry")


def test_a_conversation_that_fills_the_context_is_summarized_in_parts():
    limit = len(REQUEST) + 130
    session = new_session(None, max_position_embeddings=limit, on_overflow="drop-turns")
    answers = [{"role": "assistant", "content": "y" * 30}]
    session.messages = [m for i in range(8) for m in (user_message("abcdefgh"[i] + "x" * 30), *answers)]
    pieces = compact(session, 1)
    assert sum(piece.finish_reason is not None for piece in pieces) > 2
    assert all(piece.prompt_tokens + 5 <= limit for piece in pieces)
    assert count_turns(session.messages) == 2 and session.messages[2]["content"].startswith("h")
    check(session, "ask", "why")


def test_a_turn_that_does_not_fit_with_the_request_loses_its_middle():
    session = new_session(None, max_position_embeddings=len(REQUEST) + 120)
    session.messages = [user_message("begin" + "x" * 300 + "end"), {"role": "assistant", "content": "yes"}]
    asked = list[str]()
    aside = session.aside
    session.aside = lambda messages, options: [asked.append(messages[0]["content"]), aside(messages, options)][1]
    compact(session, 0)
    assert asked[0].startswith("begin") and CUT in asked[0] and asked[0].endswith("end")
    check(session, "ask", "why")


def test_a_context_that_has_no_room_for_the_request_is_told():
    session = new_session(None, max_position_embeddings=14)
    check(session, "ask", "one")
    before = list(session.messages)
    with pytest.raises(ContextError):
        compact(session, 0)
    assert session.messages == before
    check(session, "retry")


def test_what_is_stopped_changes_nothing(session):
    for text in TEXTS[:3]:
        check(session, "ask", text)
    before = list(session.messages)
    compaction = Compaction.of(session, 1)
    summary = compaction.summarize(options())
    next(summary)
    summary.close()
    assert (compaction.result, session.messages) == (None, before)
    with pytest.raises(KeyboardInterrupt):
        list(compaction.summarize(AnswerOptions(sampler=GREEDY, progress=interrupting(lambda *_: None, [1]))))
    assert compaction.result is None
    check(session, "ask", "why")


def test_an_empty_summary_is_no_result():
    session = new_session(None)
    check(session, "ask", "one")
    compaction = Compaction.of(session, 0)
    list(compaction.summarize(AnswerOptions(sampler=Scripted([2]))))
    assert compaction.result is None


def test_no_schema_binds_or_is_told_for_a_summary():
    session = new_session(None)
    check(session, "ask", "one")
    session.schema = {"type": "object"}
    asked = [*session.messages, user_message(REQUEST)]
    pieces = compact(session, 0)
    assert [piece.token for piece in pieces] == cold(session, asked, len(pieces))


def test_a_summary_may_have_half_of_what_it_takes_the_place_of(monkeypatch):
    monkeypatch.setattr(compacting, "REQUEST", "in {words} words")
    session = new_session(None)
    lengths = []
    for n in (1, 300, 3000):
        session.messages = [user_message("x" * n), {"role": "assistant", "content": "yes"}]
        lengths.append(Compaction.of(session, 0).max_tokens)
    assert lengths[0] == 32 and 150 <= lengths[1] < 160 and lengths[2] == 1024
    assert compacting._request(1000) == user_message("in 300 words")
