"""The demo model as a Mixtral of equal experts: the same answers and logits, on a real model."""

import mlx.core as mx
import numpy as np
import pytest
from helpers.cli import run
from helpers.upcycled import upcycle

from mistral_mlx import encode_chat, load
from mistral_mlx.convert import convert
from mistral_mlx.convert.export.gguf_export import export_gguf

pytestmark = pytest.mark.real

QUESTION = "What is the capital of France?"
ANSWER = b"The capital of France is Paris.\n"


@pytest.fixture(scope="module")
def mixture(demo, tmp_path_factory):
    return upcycle(demo, tmp_path_factory.mktemp("mixture") / "model")


def ask(folder):
    result = run("complete", "-m", folder, "--temperature", "0", "--quiet", QUESTION)
    return result.returncode, result.stdout, result.stderr


def logits(folder):
    model, tokenizer = load(folder)
    ids = encode_chat(tokenizer, [{"role": "user", "content": QUESTION}])
    return np.array(model(mx.array([ids])))[0]


def test_the_mixture_answers_as_the_model_it_was_made_of(mixture):
    assert ask(mixture) == (0, ANSWER, b"")


def test_its_logits_are_those_of_the_model_it_was_made_of(demo, mixture, exact_cache, exact_products):
    expected, found = logits(demo), logits(mixture)
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_it_answers_after_a_journey_through_a_gguf_file(mixture, tmp_path):
    export_gguf(mixture, tmp_path / "mixture.gguf")
    convert(tmp_path / "mixture.gguf", tmp_path / "back")
    assert ask(tmp_path / "back") == (0, ANSWER, b"")
