"""The demo model, SmolLM2-135M-Instruct: a real trained model answers correctly."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest
from helpers.cli import run
from reference import forward

from mistral_mlx import Sampler, Session, encode_chat, generate, generate_step, kernels, load
from mistral_mlx.generation.answer import AnswerOptions

pytestmark = pytest.mark.real

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def opened(demo):
    """One thread: another file is tested at the same time, and threads that wait for each other lose much by that."""
    kernels.set_threads(1)
    yield load(demo)
    kernels.set_threads(0)


def test_the_demo_model_answers(demo):
    result = run("complete", "-m", demo, "--temperature", "0", "--quiet", QUESTION)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"The capital of France is Paris.\n", b"")


def test_it_was_imported_without_loss(demo):
    """Q4_1 and Q8_0 are 5 and 9 bits with their scales; a float32 norm is neither."""
    config = json.loads((demo / "config.json").read_text())
    assert config["quantization"]["bits"] == 4
    assert config["quantization"]["model.embed_tokens"]["bits"] == 8
    facts = json.loads(run("info", demo, "--json").stdout)
    assert (facts["parameters"], facts["dtypes"]["F32"]) == (134_515_008, 61)


def test_its_logits_are_those_of_the_reference_on_the_same_weights(opened, exact_cache, exact_products):
    model, tokenizer = opened
    ids = encode_chat(tokenizer, [{"role": "user", "content": QUESTION}])
    expected = forward(model.args, unpacked(model), ids)
    logits = np.array(model(mx.array([ids])))[0]
    assert np.abs(logits - expected).max() < 1e-3 * np.abs(expected).max()
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_the_steps_of_a_prompt_do_not_change_an_answer(opened):
    """Down to one token at a time, with a sampler that would notice the last bit of a logit sooner or later."""
    model, tokenizer = opened
    ids = encode_chat(tokenizer, [{"role": "user", "content": QUESTION * 8}])
    answers = [
        list(generate_step(ids, model, sampler=Sampler(temperature=1.2, seed=3), max_tokens=128, prefill_step_size=n))
        for n in (1, 7, 20, len(ids))
    ]
    assert answers == answers[:1] * 4


def test_one_token_at_a_time_gives_the_greedy_answer_of_the_whole_prompt(opened):
    model, tokenizer = opened
    ids = encode_chat(tokenizer, [{"role": "user", "content": "Tell me a long story about a fox. " * 8}])
    options = {"sampler": Sampler(temperature=0), "max_tokens": 512}
    answers = [list(generate_step(ids, model, prefill_step_size=n, **options)) for n in (1, len(ids))]
    assert len(answers[0]) == 512
    assert answers[0] == answers[1]


def test_a_line_of_a_batch_draws_the_tokens_of_its_prompt_alone(demo, opened, tmp_path):
    """Lines share the beginning of their prompts, whose keys and values are computed once."""
    model, tokenizer = opened
    questions = [f"What is {i} times {i % 7}, and how do you know?" for i in range(60)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    sampling = ("--temperature", "1", "--top-p", "1", "--seed", "7", "-n", "8", "--threads", "1")
    lines = run("batch", "-m", demo, tmp_path / "in.jsonl", *sampling).stdout.splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    assert json.loads(lines[1])["cached_tokens"] > 0
    for i, question in enumerate(questions):
        ids = encode_chat(tokenizer, [{"role": "user", "content": question}])
        sampler = Sampler(temperature=1, top_p=1, seed=7 + i)
        assert generate(model, tokenizer, ids, sampler=sampler, max_tokens=8) == texts[i]


def unpacked(model):
    """Return the weights of a packed model as plain arrays, by HF name."""
    plain = {}
    for path, module in model.named_modules():
        if "scales" in module:
            scales, biases = module.scales.astype(mx.float32), module.biases.astype(mx.float32)
            plain[f"{path}.weight"] = mx.dequantize(module.weight, scales, biases, module.group_size, module.bits)
        elif "weight" in module:
            plain[f"{path}.weight"] = module.weight
    return {name: np.array(weight.astype(mx.float32)) for name, weight in plain.items()}


def test_a_chat_continues_its_cache_and_equals_a_cold_run(opened):
    model, tokenizer = opened
    session = Session(model, tokenizer)
    greedy = {"sampler": Sampler(temperature=0), "max_tokens": 8}
    for text in (QUESTION, "And of Italy?"):
        messages = [*session.messages, {"role": "user", "content": text}]
        answer = list(session.ask(text, AnswerOptions(**greedy)))
        cold = list(generate_step(encode_chat(tokenizer, messages), model, **greedy))
        assert [response.token for response in answer] == cold[: len(answer)]
    assert answer[-1].cached_tokens > 40
    assert "".join(r.text for r in answer) == tokenizer.decode([r.token for r in answer])


def test_with_a_small_window_the_ring_wraps_and_stays_right(demo, tmp_path):
    """The same weights under a config with a window of 24 tokens."""
    for name in ("tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        shutil.copyfile(demo / name, tmp_path / name)
    config = json.loads((demo / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "mistral", "sliding_window": 24}))
    model, tokenizer = load(tmp_path)
    ids = tokenizer.encode("The quick brown fox jumps over the lazy dog. " * 6)
    options = {"sampler": Sampler(temperature=0), "max_tokens": 4}
    in_steps, whole = (list(generate_step(ids, model, prefill_step_size=n, **options)) for n in (25, 512))
    assert in_steps == whole
