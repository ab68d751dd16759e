"""Undo, retry, edit and continue give the answers of a cold run, also after a wrap."""

import random

import pytest
from conftest import ThumbTokenizer
from helpers.models import Scripted, interrupting, tiny_model
from helpers.session_steps import GREEDY, TEXTS, WINDOWS, check, new_session, perform, random_step

from mistral_mlx import Session, encode_chat, kernels
from mistral_mlx.errors import ContextError, OptionError
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.model import cache
from mistral_mlx.model.cache import RollingBufferCache


@pytest.fixture(params=WINDOWS.values(), ids=WINDOWS)
def session(request):
    return new_session(request.param)


def talk(session, n=4):
    for text in TEXTS[:n]:
        check(session, "ask", text)


def contents(session, role="user"):
    return [message["content"] for message in session.messages if message["role"] == role]


def test_undo_drops_turns_and_returns_what_was_said(session):
    talk(session)
    assert session.undo() == [TEXTS[3]]
    assert session.undo(2) == TEXTS[1:3]
    assert contents(session) == TEXTS[:1]
    check(session, "ask", "what now")
    session.undo(2)
    assert session.messages == []
    with pytest.raises(OptionError, match="no turn yet"):
        session.undo()
    check(session, "ask", "again")


def test_what_cannot_be_undone_or_edited_changes_nothing(session):
    talk(session, 2)
    before = list(session.messages)
    for wrong in (lambda: session.undo(3), lambda: session.undo(0), lambda: perform(session, "edit", 3, "no")):
        with pytest.raises(OptionError):
            wrong()
    assert session.messages == before
    session.clear()
    for name in ("retry", "continue_answer"):
        with pytest.raises(OptionError):
            perform(session, name)


def test_retry_gives_the_same_answer_again_when_nothing_is_random(session):
    talk(session)
    before = [dict(message) for message in session.messages]
    check(session, "retry")
    assert session.messages == before
    check(session, "ask", "so")


def test_another_retry_may_give_another_answer():
    session = new_session(8)
    talk(session, 2)
    list(session.retry(AnswerOptions(sampler=Scripted([*session.tokenizer.encode("yes"), 2]))))
    assert contents(session, "assistant")[-1] == "yes"
    check(session, "ask", "so")


def test_edit_replaces_a_message_and_drops_what_came_after(session):
    talk(session)
    check(session, "edit", 3, "another")
    assert contents(session) == [TEXTS[0], "another"]
    check(session, "edit", 1, "yet another")
    check(session, "ask", "so")


def test_an_answer_goes_on_from_where_it_ended(session):
    check(session, "ask", TEXTS[0], max_tokens=12)
    whole = session.messages[-1]
    session.undo()
    perform(session, "ask", TEXTS[0], max_tokens=4)
    perform(session, "continue_answer", max_tokens=8)
    assert session.messages[-1] == whole
    check(session, "ask", "so")


def test_an_interrupted_answer_is_marked_until_it_has_gone_on(session):
    def begin(name, *args):
        stream = getattr(session, name)(*args, AnswerOptions(sampler=Scripted(session.tokenizer.encode("xyz"))))
        next(stream)
        stream.close()

    begin("ask", TEXTS[0])
    assert session.messages[-1] == {"role": "assistant", "content": "x", "interrupted": True, "ids": [29]}
    check(session, "continue_answer")
    assert "interrupted" not in session.messages[-1]
    begin("continue_answer")
    assert session.messages[-1]["content"].endswith("x")
    assert session.messages[-1]["interrupted"] is True
    check(session, "ask", "so")
    assert "interrupted" not in session.messages[-1]


def test_an_answer_cut_at_a_stop_string_goes_on_from_its_text(session):
    talk(session, 2)
    list(session.ask("why", AnswerOptions(sampler=Scripted(session.tokenizer.encode("yes and no")), stop=["d n"])))
    assert session.messages[-1] == {"role": "assistant", "content": "yes an"}
    check(session, "continue_answer")
    check(session, "ask", "so")


def test_a_retry_interrupted_before_it_began_leaves_the_old_answer(session):
    talk(session)
    before = list(session.messages)

    def stop(what, done, total):
        raise KeyboardInterrupt

    for name, args in (("retry", ()), ("edit", (2, "x")), ("continue_answer", ()), ("ask", ("x",))):
        with pytest.raises(KeyboardInterrupt):
            perform(session, name, *args, progress=stop)
        assert (session.messages, session.is_answering) == (before, False)
    check(session, "ask", "so")


def test_the_system_prompt_can_change_at_any_time(session):
    talk(session, 3)
    session.set_system("be kind")
    check(session, "ask", "so")
    check(session, "retry")
    session.set_system(None)
    assert session.system is None
    check(session, "ask", "so")


@pytest.mark.cpu
def test_fifty_interrupts_in_any_operation_lose_nothing(session, monkeypatch):
    rng, countdown = random.Random(1), [0]

    places = [(kernels, "products"), (cache, "_overwrite"), (cache, "_grown"), (kernels, "run_block")]
    places += [(RollingBufferCache, name) for name in ("_write", "copy", "trim", "put")] + [(kernels.ReadyModel, "run")]
    for place, name in places:
        monkeypatch.setattr(place, name, interrupting(getattr(place, name), countdown))
    n_interrupted = 0
    for _ in range(50):
        if len(session.messages) > 8:
            session.undo(2)
        name, args = random_step(session, rng)
        before = list(session.messages)
        countdown[0] = rng.randrange(1, 30)
        try:
            if name == "undo":
                session.undo(*args)
            else:
                perform(session, name, *args, max_tokens=6, prefill_step_size=5)
        except KeyboardInterrupt:
            n_interrupted += 1
            assert session.messages == before or session.messages[-1]["interrupted"]
        countdown[0] = 0
        afterwards = [("ask", "go on"), *([("retry",), ("continue_answer",)] if session.messages else [])]
        check(session, *rng.choice(afterwards))
    assert n_interrupted > 20


# Snapshots


def test_a_snapshot_saves_the_prefill_of_what_came_before_a_turn():
    session = new_session(24)
    talk(session)
    n_tokens = session.n_tokens
    cached = [response.cached_tokens for response in session.retry(AnswerOptions(sampler=GREEDY, max_tokens=7))]
    assert 24 < cached[0] < n_tokens
    session.undo(3)
    assert next(session.ask("else", AnswerOptions(sampler=GREEDY))).cached_tokens > 0


def test_without_snapshots_it_is_all_prefilled_again():
    session = new_session(24, max_snapshot_bytes=0)
    talk(session)
    check(session, "ask", TEXTS[1] * 20)  # more than a ring can go back
    session.undo()
    assert next(session.ask("else", AnswerOptions(sampler=GREEDY))).cached_tokens == 0


def test_snapshots_keep_to_their_limit_and_the_newest_stay():
    one = 2 * 2 * 2 * 128 * 8 * 4  # layers, keys and values, heads, slots, head_dim, float32
    session = new_session(24, max_snapshot_bytes=2 * one)
    for text in TEXTS:
        check(session, "ask", f"{text} " * (120 // len(text)))  # more than a ring can go back
    kept = session.timeline.snapshots.kept
    assert sum(snapshot.nbytes for snapshot in kept) <= 2 * one
    assert len(kept) == 2
    assert [len(s.ids) for s in kept] == sorted(len(s.ids) for s in kept)
    session.undo()
    assert next(session.ask("else", AnswerOptions(sampler=GREEDY))).cached_tokens == len(kept[-1].ids)


def test_a_conversation_within_its_window_keeps_no_snapshots():
    session = new_session(4096)
    talk(session, 4)
    assert session.timeline.snapshots.kept == []


# The context and its end


def small(**options):
    return new_session(None, max_position_embeddings=96, **options)


def test_whole_oldest_turns_make_room_for_the_next_answer():
    session = small(on_overflow="drop-turns", system="be kind")
    dropped = []
    for text in TEXTS * 3:
        before = contents(session)
        perform(session, "ask", text)
        assert session.context.used <= 96
        n = session.dropped_turns
        dropped.append(n)
        assert contents(session) == [*before[n:], text]
        assert contents(session, "assistant")[-1] == session.messages[-1]["content"]
    assert sum(dropped) > 5 and dropped[0] == 0
    asked = session.messages[:-1]
    check(session, "retry")
    assert session.messages[:-1] == asked


def test_a_full_context_stops_where_that_was_asked_for():
    session = small()
    for _ in range(3):
        check(session, "ask", "tell me more of it")
    with pytest.raises(ContextError, match="96"):
        check(session, "ask", "tell me more of it")
    n_messages = len(session.messages)
    assert (n_messages, session.dropped_turns) == (6, 0)
    check(session, "retry")
    assert len(session.messages) == n_messages


def test_what_does_not_fit_alone_is_refused_and_drops_nothing():
    session = small(on_overflow="drop-turns")
    check(session, "ask", "why")
    before = list(session.messages)
    with pytest.raises(ContextError):
        perform(session, "ask", "x" * 96)
    assert (session.messages, session.dropped_turns) == (before, 0)


def test_an_unknown_policy_is_refused():
    with pytest.raises(OptionError, match="drop-turns"):
        small(on_overflow="forget")


def test_the_meter_counts_the_conversation(session):
    assert (session.context.used, session.context.fraction) == (0, 0.0)
    for text in TEXTS[:3]:
        check(session, "ask", text)
        assert session.context.used == len(encode_chat(session.tokenizer, session.messages))
    used = session.context.used
    stream = session.ask("so", AnswerOptions(sampler=GREEDY))
    next(stream)
    assert session.context.used == session.cache[0].offset > used
    stream.close()
    session.undo(4)
    assert session.context.used == 0


def test_the_meter_shows_the_limit_or_the_smallest_window():
    uses = {name: new_session(window).context for name, window in WINDOWS.items()}
    assert {name: (use.limit, use.is_window) for name, use in uses.items()} == {
        "windowed": (24, True),
        "tiny window": (8, True),
        "two windows": (8, True),
        "full": (4096, False),
        "interleaved": (4096, False),
    }
    session = new_session(8)
    talk(session, 2)
    assert session.context.used > 8 and session.context.fraction == 1.0


def test_an_answer_cut_in_the_middle_of_a_character_goes_on_with_the_whole_one():
    """The cut one used to end with U+FFFD, and going on added more of them."""
    session = Session(tiny_model(sliding_window=None)[0], ThumbTokenizer())
    list(session.ask("why", AnswerOptions(sampler=Scripted([6, *ThumbTokenizer.THUMB]), max_tokens=3)))
    assert contents(session, "assistant") == ["a"]
    list(session.continue_answer(AnswerOptions(sampler=Scripted([*ThumbTokenizer.THUMB, 7]), max_tokens=5)))
    assert contents(session, "assistant") == ["a👍b"]
