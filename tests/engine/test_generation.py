"""The token loop: what it yields, when it ends, and what it reports."""

import mlx.core as mx
import numpy as np
import pytest
from conftest import ThumbTokenizer
from helpers.models import LetterTokenizer, Scripted, tiny_model

from mistral_mlx import Mistral, generate, generate_step, make_cache, prefill, stream_generate
from mistral_mlx.errors import ContextError, OptionError
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.generation.stream import stream
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.sampling.sampler import Sampler

GREEDY = {"sampler": Sampler(temperature=0)}
PROMPT = [1, 9, 30, 12, 44, 7, 8, 21, 50, 3, 17]


@pytest.fixture
def model():
    return tiny_model()[0]


def greedy(model, prompt, n):
    """Return what the whole history, evaluated anew for every token, continues with."""
    ids = list(prompt)
    for _ in range(n):
        ids.append(int(mx.argmax(model(mx.array([ids]))[0, -1])))
    return ids[len(prompt) :]


def text_of(responses):
    return "".join(response.text for response in responses)


def spelled(model, text, **options):
    """Stream a reply whose ids spell `text`, which may end in control tokens given as numbers."""
    tokenizer = LetterTokenizer()
    ids = [i for part in ([text] if isinstance(text, str) else text) for i in encode(tokenizer, part)]
    options = {"max_tokens": len(ids), **options}
    return list(stream_generate(model, tokenizer, "Hello", sampler=Scripted(ids), **options))


def encode(tokenizer, part):
    return [part] if isinstance(part, int) else tokenizer.encode(part)


@pytest.mark.parametrize("prefill_step_size", [1, 4, 512])
def test_greedy_ids_equal_evaluating_everything_anew(model, prefill_step_size):
    ids = list(generate_step(PROMPT, model, max_tokens=24, prefill_step_size=prefill_step_size, **GREEDY))
    assert ids == greedy(model, PROMPT, 24)


def test_a_cache_is_continued(model):
    cache = make_cache(model.args)
    prefill(model, PROMPT[:6], cache)
    assert list(generate_step(PROMPT[6:], model, cache=cache, max_tokens=9, **GREEDY)) == greedy(model, PROMPT, 9)


def test_a_yielded_id_enters_the_cache_when_the_next_is_asked_for(model):
    cache = make_cache(model.args)
    steps = generate_step(PROMPT, model, cache=cache, max_tokens=3, **GREEDY)
    offsets = [cache[0].offset for _ in steps]
    assert offsets == [len(PROMPT), len(PROMPT) + 1, len(PROMPT) + 2]


def test_prefill_reports_every_step_and_can_be_stopped_between_them(model):
    seen, cache = [], make_cache(model.args)

    def stop_at_eight(what, done, total):
        seen.append((done, total))
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prefill(model, PROMPT, cache, prefill_step_size=4, progress=stop_at_eight)
    assert [progress for progress in seen if progress[0] % 4 == 0] == [(0, 11), (4, 11), (8, 11)]
    assert {layer.offset for layer in cache} == {8}


def test_prefill_returns_the_logits_after_the_last_id(model):
    logits = prefill(model, PROMPT, make_cache(model.args))
    np.testing.assert_allclose(np.array(logits), np.array(model(mx.array([PROMPT]))[0, -1]), atol=1e-5)


def test_pieces_join_to_the_text_and_count_up(model):
    responses = spelled(model, "some text.")
    assert text_of(responses) == "some text."
    assert [r.generation_tokens for r in responses] == list(range(1, 11))
    assert [r.finish_reason for r in responses] == [None] * 9 + ["length"]
    assert {(r.prompt_tokens, r.cached_tokens) for r in responses} == {(6, 0)}
    assert all(r.ttft_s > 0 and r.prompt_tps > 0 and r.peak_memory_gb > 0 for r in responses)


@pytest.mark.parametrize("stop_id", [2, 40])
def test_a_stop_id_of_config_or_tokenizer_ends_the_text_and_is_not_in_it(stop_id):
    model, _ = tiny_model(eos_token_id=[40])
    responses = spelled(model, ["yes", stop_id, "never"])
    assert (text_of(responses), responses[-1].finish_reason, responses[-1].token) == ("yes", "stop", stop_id)


@pytest.mark.parametrize(
    ("text", "stop", "expected", "reason"),
    [
        ("one, two", [","], "one", "stop"),
        ("one, two", [", t", "ne"], "o", "stop"),
        ("aaab", ["aab"], "a", "stop"),
        ("one, two", [",x"], "one, two", "length"),
        ("one,", [", x"], "one,", "length"),
        ("one", [], "one", "length"),
    ],
)
def test_text_ends_before_the_first_stop_string(model, text, stop, expected, reason):
    responses = spelled(model, text, stop=stop)
    assert (text_of(responses), responses[-1].finish_reason) == (expected, reason)


def test_what_may_begin_a_stop_string_waits_and_nothing_else_does(model):
    assert [r.text for r in spelled(model, "a, b. c", stop=[", x"])] == ["a", "", "", ", b", ".", " ", "c"]


def test_a_held_back_stop_string_is_given_out_at_a_stop_id(model):
    assert text_of(spelled(model, ["one, ", 2], stop=[", x"])) == "one, "


def test_a_string_prompt_gets_bos_and_its_continuation_keeps_the_space(model):
    assert text_of(spelled(model, " and so on")) == " and so on"
    tokenizer = LetterTokenizer()
    ids = tokenizer.encode(" yes")
    answer = stream_generate(model, tokenizer, [1, 9, 9], sampler=Scripted(ids), max_tokens=4)
    assert text_of(answer) == "yes"


def test_full_attention_stops_when_the_context_is_full():
    model, _ = tiny_model(sliding_window=None, max_position_embeddings=16)
    tokenizer = LetterTokenizer()
    responses = list(stream_generate(model, tokenizer, PROMPT, sampler=Scripted([9] * 99), max_tokens=99))
    assert responses[-1].finish_reason == "context"
    assert responses[-1].prompt_tokens + responses[-1].generation_tokens == 17  # the last one is not fed any more


@pytest.mark.parametrize(
    ("ids", "max_tokens", "text", "reason"),
    [
        ((6, *ThumbTokenizer.THUMB), 4, "a", "length"),
        ((6, *ThumbTokenizer.THUMB), 5, "a👍", "length"),
        ((6, *ThumbTokenizer.THUMB[:2], 7), 4, "a\ufffd\ufffdb", "length"),
        ((6, *ThumbTokenizer.THUMB[:3], 2), 9, "a\ufffd\ufffd\ufffd", "stop"),
    ],
)
def test_a_limit_in_the_middle_of_a_character_ends_the_text_before_it(model, ids, max_tokens, text, reason):
    """It used to leave U+FFFD there. What the model itself breaks off stays broken."""
    sampler = Scripted(ids)
    responses = list(stream_generate(model, ThumbTokenizer(), "a", sampler=sampler, max_tokens=max_tokens))
    assert (text_of(responses), responses[-1].finish_reason) == (text, reason)


def test_a_prompt_beyond_the_context_is_refused_with_both_counts_before_any_work():
    model, _ = tiny_model(sliding_window=None, max_position_embeddings=16)
    with pytest.raises(ContextError, match=r"17 tokens.*16"):
        next(generate_step([5] * 17, model))


def test_a_window_knows_no_end():
    model, _ = tiny_model(max_position_embeddings=16)
    assert len(list(generate_step([5] * 20, model, max_tokens=9, **GREEDY))) == 9


def test_generate_is_the_joined_stream(model):
    tokenizer = LetterTokenizer()
    text = generate(model, tokenizer, "Hello", max_tokens=12, **GREEDY)
    assert text == text_of(stream_generate(model, tokenizer, "Hello", max_tokens=12, **GREEDY)) != ""


def test_the_same_seed_generates_the_same(model):
    def ids(seed):
        return list(generate_step(PROMPT, model, sampler=Sampler(temperature=1, seed=seed), max_tokens=20))

    assert ids(3) == ids(3) != ids(4)


@pytest.mark.parametrize(
    ("prompt", "options", "said"),
    [
        ([], {}, "empty"),
        ([64], {}, "vocabulary"),
        ([-1], {}, "vocabulary"),
        ([1], {"max_tokens": 0}, "max_tokens is 0"),
        ([1], {"prefill_step_size": 0}, "prefill_step_size is 0"),
    ],
)
def test_impossible_requests_are_refused(model, prompt, options, said):
    with pytest.raises(OptionError, match=said):
        next(generate_step(prompt, model, **options))


def test_an_empty_stop_string_is_refused(model):
    with pytest.raises(OptionError, match="stop string"):
        spelled(model, "x", stop=[""])


def test_only_the_last_position_goes_through_the_head(model, monkeypatch):
    shapes, logits = [], Mistral.logits
    monkeypatch.setattr(Mistral, "logits", lambda self, hidden: shapes.append(hidden.shape) or logits(self, hidden))
    prefill(model, PROMPT, make_cache(model.args), prefill_step_size=4)
    assert shapes == [(1, 1, model.args.dim)]


def test_a_repetition_penalty_sees_what_is_cached(model):
    penalized = {"sampler": Sampler(temperature=0, repetition_penalty=1.8), "max_tokens": 9}
    cache = make_cache(model.args)
    prefill(model, PROMPT[:8], cache)
    warm = list(generate_step(PROMPT[8:], model, cache=cache, history=PROMPT[:8], **penalized))
    assert warm == list(generate_step(PROMPT, model, **penalized))


def test_a_repetition_penalty_sees_what_a_timeline_holds(model):
    options = AnswerOptions(sampler=Sampler(temperature=0, repetition_penalty=1.8), max_tokens=9)
    timeline, tokenizer = Timeline(model), LetterTokenizer()
    cold = list(stream(Timeline(model), tokenizer, PROMPT, options))
    timeline.extend(PROMPT[:8])
    warm = list(stream(timeline, tokenizer, PROMPT, options))
    assert ([r.token for r in warm], warm[0].cached_tokens) == ([r.token for r in cold], 8)


def test_a_text_that_goes_on_gets_no_second_bos(model):
    cache, tokenizer = make_cache(model.args), LetterTokenizer()
    options = {"cache": cache, "max_tokens": 1, **GREEDY}
    first = list(stream_generate(model, tokenizer, "abc", **options))
    second = list(stream_generate(model, tokenizer, "abc", **options))
    assert (first[-1].prompt_tokens, second[-1].prompt_tokens - second[-1].cached_tokens) == (4, 3)


@pytest.mark.parametrize("ids", [[10**6], [-1], []])
def test_prefill_refuses_ids_that_cannot_be(model, ids):
    """An id beyond the embedding used to end the process."""
    with pytest.raises(OptionError):
        prefill(model, ids, make_cache(model.args))


def test_a_cache_left_in_the_middle_of_a_step_is_refused(model):
    cache = make_cache(model.args)
    prefill(model, PROMPT, cache)
    cache[0].offset += 1
    with pytest.raises(OptionError, match="middle of a step"):
        prefill(model, [1], cache)


@pytest.mark.parametrize("array", [np.array, mx.array])
def test_arrays_are_prompts_too(model, array):
    assert list(generate_step(array(PROMPT), model, max_tokens=4, **GREEDY)) == greedy(model, PROMPT, 4)


@pytest.mark.cpu
def test_a_long_step_tells_how_far_it_is(model):
    """A block of a large model takes a while on a CPU; signals are heard, and progress shown, after each."""
    seen = []
    prefill(model, PROMPT, make_cache(model.args), progress=lambda what, done, total: seen.append(done))
    assert seen == sorted(seen)
    assert len(seen) == 2 + model.args.n_layers - 1
    assert (seen[0], seen[-1]) == (0, len(PROMPT))
    assert all(0 <= done < len(PROMPT) for done in seen[:-1])


@pytest.mark.parametrize("n", [1, 2])
def test_progress_of_a_short_prompt_begins_and_ends_once(model, n):
    """A prompt of fewer tokens than the model has blocks used to begin with each block; a chat's second turn is one."""
    seen = []
    prefill(model, PROMPT[:n], make_cache(model.args), progress=lambda what, done, total: seen.append(done))
    assert seen == sorted(set(seen))
    assert (seen[0], seen[-1]) == (0, n)
