"""A conversation over one cache gives the same answers as a cold run over its messages."""

import random

import pytest
from helpers.models import LetterTokenizer, Scripted, interrupting, tiny_model

from mistral_mlx import Session, encode_chat, generate_step, kernels
from mistral_mlx.errors import ContextError, OptionError
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.model import cache
from mistral_mlx.model.cache import RollingBufferCache
from mistral_mlx.sampling.sampler import Sampler

TURNS = ["hello there", "and then", "why", "tell me more of it", "go on", "so"]
WINDOWS = {"windowed": 24, "tiny window": 8, "full": None, "interleaved": [24, None]}


@pytest.fixture(params=WINDOWS.values(), ids=WINDOWS)
def session(request):
    return new_session(request.param)


def new_session(sliding_window, **options):
    return Session(tiny_model(sliding_window=sliding_window)[0], LetterTokenizer(), **options)


def ask(session, text, *, max_tokens=9, **options):
    asked = AnswerOptions(sampler=Sampler(temperature=0), max_tokens=max_tokens, **options)
    return list(session.ask(text, asked))


def cold(session, messages, n):
    """Return the greedy ids after `messages`, from an empty cache."""
    system = [{"role": "system", "content": session.system}] if session.system else []
    ids = encode_chat(session.tokenizer, [*system, *messages])
    return list(generate_step(ids, session.model, sampler=Sampler(temperature=0), max_tokens=n))


def assert_like_a_cold_run(session, text):
    messages = [*session.messages, {"role": "user", "content": text}]
    answer = [response.token for response in ask(session, text)]
    assert answer == cold(session, messages, len(answer))


def test_every_turn_equals_a_cold_run_of_its_messages(session):
    for text in TURNS:
        assert_like_a_cold_run(session, text)


def test_a_system_prompt_moves_with_the_last_turn_and_stays_right(session):
    session.system = "be kind"
    for text in TURNS:
        assert_like_a_cold_run(session, text)


def test_only_what_is_new_is_evaluated():
    session = new_session(None)
    first = ask(session, "hello there")[-1]
    second = ask(session, "why")[-1]
    assert first.cached_tokens == 0
    assert second.cached_tokens == first.prompt_tokens + first.generation_tokens - 1
    assert second.prompt_tokens == second.cached_tokens + len("why") + 4  # the last id, </s>, [INST] and [/INST]


def test_a_wrapped_ring_without_snapshots_is_extended_and_rewound_a_few_tokens():
    session = new_session(24, max_snapshot_bytes=0)
    ask(session, "a conversation longer than the window " * 4)
    assert session.wrapped
    assert ask(session, "why")[-1].cached_tokens > 128
    session.messages = session.messages[:2]
    assert ask(session, "else")[-1].cached_tokens > 128
    ask(session, "and a question longer than what a ring can go back " * 3)
    session.messages = session.messages[:2]
    assert ask(session, "else")[-1].cached_tokens == 0


def test_messages_may_be_edited_between_turns(session):
    for text in TURNS[:4]:
        ask(session, text)
    session.messages = [*session.messages[:2], {"role": "user", "content": "another"}, *session.messages[3:6]]
    assert_like_a_cold_run(session, "what now")
    session.messages = session.messages[:-2]
    assert_like_a_cold_run(session, "what now")


def test_the_cache_holds_the_ids_of_the_transcript(session):
    for text in TURNS[:3]:
        ask(session, text)
        history = encode_chat(session.tokenizer, session.messages)
        assert session.ids == history[: len(session.ids)]
        assert {layer.offset for layer in session.cache} == {len(session.ids)}


def test_five_turns_have_one_bos():
    session = new_session(8)
    for text in TURNS[:5]:
        list(session.ask(text, AnswerOptions(sampler=Scripted([*session.tokenizer.encode("yes"), 2]))))
    assert [message["content"] for message in session.messages[1::2]] == ["yes"] * 5
    assert session.ids.count(1) == 1


def test_clear_forgets_everything_but_the_system_prompt(session):
    session.system = "be kind"
    ask(session, TURNS[0])
    session.clear()
    assert (session.messages, session.n_tokens, session.wrapped) == ([], 0, False)
    assert_like_a_cold_run(session, TURNS[1])


def test_an_answer_that_is_broken_off_stays_as_far_as_it_came(session):
    ask(session, TURNS[0])
    stream = session.ask(TURNS[1], AnswerOptions(sampler=Sampler(temperature=0)))
    text = next(stream).text + next(stream).text
    stream.close()
    assert session.messages[-1]["content"] == text
    assert_like_a_cold_run(session, TURNS[2])


def test_a_question_broken_off_before_its_answer_is_not_kept(session):
    ask(session, TURNS[0])
    before = list(session.messages)

    def stop(what, done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(session, TURNS[3], progress=stop, prefill_step_size=3)
    assert session.messages == before
    assert_like_a_cold_run(session, TURNS[3])


def test_fifty_interrupts_at_any_moment_leave_the_next_turn_right(session, monkeypatch):
    """An exception inside the model used to be able to leave layers with different offsets, or half a step stored."""
    rng, countdown = random.Random(0), [0]

    places = [
        (kernels, "products"),
        *((RollingBufferCache, name) for name in ("_write", "put")),
        (cache, "_overwrite"),
        (cache, "_grown"),
    ]
    for place, name in [*places, (kernels, "run_block"), (kernels.ReadyModel, "run")]:
        monkeypatch.setattr(place, name, interrupting(getattr(place, name), countdown))
    n_interrupted = 0
    for _ in range(50):
        if len(session.messages) > 6:
            session.messages = session.messages[-2:]
        countdown[0] = rng.randrange(1, 40)
        try:
            ask(session, rng.choice(TURNS), max_tokens=6, prefill_step_size=5)
        except KeyboardInterrupt:
            n_interrupted += 1
        countdown[0] = 0
        assert_like_a_cold_run(session, "go on")
    assert n_interrupted > 25


def test_an_interrupt_keeps_what_was_cached_and_an_error_trusts_nothing(monkeypatch):
    session = new_session(None)
    for problem, kept in ((ZeroDivisionError, False), (KeyboardInterrupt, True)):
        ask(session, TURNS[0])
        n_tokens = session.n_tokens

        def fail(*args, problem=problem, **kwargs):
            raise problem

        with monkeypatch.context() as patch:
            for name in ("attention", "run_block"):
                patch.setattr(kernels, name, fail)
            with pytest.raises(problem):
                ask(session, TURNS[1])
        assert session.n_tokens == (n_tokens if kept else 0)
        assert_like_a_cold_run(session, TURNS[1])


def test_a_question_overtakes_the_answer_before_it(session):
    """The older stream used to write its ids and messages over those of the newer one."""
    older = session.ask(TURNS[3], AnswerOptions(sampler=Sampler(temperature=0)))
    next(older)
    newer = "".join(response.text for response in ask(session, TURNS[1]))
    with pytest.raises(OptionError, match="overtaken"):
        next(older)
    older.close()
    assert [message["content"] for message in session.messages] == [TURNS[1], newer]
    assert_like_a_cold_run(session, TURNS[2])


def test_generated_ids_are_kept_as_long_as_they_say_what_was_shown():
    session = new_session(None)
    answer = ask(session, "hello")
    assert session.messages[-1]["ids"] == [response.token for response in answer if response.token != 2]
    session.clear()
    shown = session.tokenizer.decode(cold(session, [{"role": "user", "content": "hello"}], 9))
    cut = ask(session, "hello", stop=[shown[4]])
    assert cut[-1].finish_reason == "stop"
    assert "ids" not in session.messages[-1]


def test_a_conversation_beyond_the_context_is_refused_and_kept():
    session = Session(tiny_model(sliding_window=None, max_position_embeddings=40)[0], LetterTokenizer())
    ask(session, "hello")
    before = list(session.messages)
    with pytest.raises(ContextError):
        ask(session, "x" * 40)
    assert session.messages == before
    assert_like_a_cold_run(session, "ok")
