"""Several answers to one prompt, log probabilities, and filling in the middle."""

import mlx.core as mx
import numpy as np
import pytest
from helpers.models import LetterTokenizer, on_evaluation, tiny_model
from helpers.tokenizer_files import MISTRAL, mistral_folder
from mistral_common.protocol.fim.request import FIMRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from mistral_mlx import load_tokenizer, stream_generate
from mistral_mlx.errors import OptionError
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.generation.stream import stream
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.prompt.infill import encode_infill
from mistral_mlx.sampling.logprobs import token_logprobs
from mistral_mlx.sampling.sampler import Sampler

PROMPT = [1, 9, 30, 12, 44, 7, 8, 21, 50, 3, 17]


@pytest.mark.parametrize("window", [None, 8, 64])
def test_each_sample_is_the_answer_of_its_sampler_alone(window, monkeypatch):
    model, tokenizer = tiny_model(sliding_window=window)[0], LetterTokenizer()

    def samplers():
        return [Sampler(temperature=1, seed=seed) for seed in (1, 2, 3)]

    alone = [[r.token for r in stream_generate(model, tokenizer, PROMPT, sampler=s, max_tokens=9)] for s in samplers()]
    lengths = []
    on_evaluation(monkeypatch, lambda ids, cache: lengths.append(ids.shape[1]))
    timeline, options = Timeline(model), [AnswerOptions(sampler=s, max_tokens=9, fork=True) for s in samplers()]
    together = [list(stream(timeline, tokenizer, PROMPT, each)) for each in options]
    assert [[response.token for response in answer] for answer in together] == alone
    assert len({tuple(ids) for ids in alone}) == 3
    assert [answer[-1].cached_tokens for answer in together] == [0, len(PROMPT), len(PROMPT)]
    assert {answer[-1].prompt_tokens for answer in together} == {len(PROMPT)}
    assert sorted(lengths)[-2:] == [1, len(PROMPT)]  # the prompt once, then single tokens


def test_a_copied_cache_goes_its_own_way():
    model = tiny_model()[0]
    from mistral_mlx import generate_step, make_cache, prefill

    cache = make_cache(model.args)
    prefill(model, PROMPT, cache)
    copies = [layer.copy() for layer in cache]
    greedy = {"sampler": Sampler(temperature=0), "max_tokens": 12}
    first = list(generate_step([5], model, cache=cache, **greedy))
    assert list(generate_step([5], model, cache=copies, **greedy)) == first


def test_log_probabilities_are_those_of_the_raw_logits():
    model = tiny_model()[0]
    sampler = Sampler(temperature=0.1, top_k=1, repetition_penalty=9.0)
    options = AnswerOptions(sampler=sampler, max_tokens=4, n_logprobs=3)
    responses = list(stream(Timeline(model), LetterTokenizer(), PROMPT, options))
    ids = [*PROMPT, *(response.token for response in responses)]
    logits = np.array(model(mx.array([ids]))[0], np.float64)
    for i, response in enumerate(responses):
        row = logits[len(PROMPT) + i - 1]
        expected = row - np.log(np.exp(row - row.max()).sum()) - row.max()
        assert response.logprobs.logprob == pytest.approx(expected[response.token], abs=1e-4)
        assert [token for token, _ in response.logprobs.top] == list(np.argsort(-expected)[:3])
        assert [value for _, value in response.logprobs.top] == pytest.approx(sorted(expected)[:-4:-1], abs=1e-4)


@pytest.mark.parametrize(("n_top", "top"), [(0, ()), (2, (1, 2)), (9, (1, 2, 0, 3))])
def test_the_likeliest_come_first_and_of_equals_the_lower_id(n_top, top):
    result = token_logprobs(mx.array([0.0, 2.0, 2.0, -1000.0]), 3, n_top)
    assert tuple(token for token, _ in result.top) == top
    assert result.logprob == pytest.approx(-1002.0 - np.log(2 + np.exp(-2.0)))


def test_a_negative_number_of_log_probabilities_is_refused():
    with pytest.raises(OptionError, match="logprobs is -1"):
        AnswerOptions(n_logprobs=-1)


@pytest.mark.parametrize(("prefix", "suffix"), [("def f(", "return x"), ("a", ""), ("", "  x\n"), ("é", "☺ b")])
def test_filling_in_the_middle_has_the_ids_of_mistral_common(prefix, suffix, tmp_path):
    reference = MistralTokenizer.from_file(str(MISTRAL["v3"])).encode_fim(FIMRequest(prompt=prefix, suffix=suffix))
    assert encode_infill(load_tokenizer(mistral_folder(tmp_path, "v3")), prefix, suffix) == reference.tokens


def test_a_model_without_the_tokens_cannot_fill_in_the_middle():
    with pytest.raises(OptionError, match=r"it has no \[SUFFIX\] token"):
        encode_infill(LetterTokenizer(), "a", "b")
