"""--kv-bits, --window and --sinks in every command that runs a model."""

import json

import pytest
from helpers.chat import chat, said
from helpers.cli import GREEDY, one_line, run
from helpers.tiny_folder import TEXT, write_tiny_folder

from mistral_mlx import generate, load
from mistral_mlx.cli.options import shared
from mistral_mlx.model.cache_options import DEFAULT, CacheOptions
from mistral_mlx.sampling.sampler import Sampler

CHOSEN = ("--window", "9", "--sinks", "2", "--kv-bits", "8")
SAYS = "the model sees the last 9 tokens and the first 2; it forgets what is older"


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A model without a window."""
    return write_tiny_folder(tmp_path_factory.mktemp("models") / "full", sliding_window=None)


def test_an_answer_is_that_of_the_chosen_cache(full):
    result = run("complete", "--raw", "-m", full, *GREEDY, *CHOSEN, TEXT)
    assert result.returncode == 0
    assert SAYS in result.stderr.decode()
    answers = {
        choice: generate(*load(full, **vars(choice)), TEXT, sampler=Sampler(temperature=0), max_tokens=8)
        for choice in (DEFAULT, CacheOptions(9, 2, 8))
    }
    assert result.stdout.decode().rstrip("\n") == answers[CacheOptions(9, 2, 8)].rstrip("\n") != answers[DEFAULT]


def test_a_batch_and_a_chat_know_the_choice(full):
    assert SAYS in run("batch", "-m", full, *GREEDY, *CHOSEN, "-", input=b'"x"\n').stderr.decode()
    lines = said(chat(full, "/context", *CHOSEN))
    assert SAYS in lines
    assert "  the cache keeps the last 9 tokens and the first 2, in 8 bits" in lines
    assert not any("the cache keeps" in line for line in said(chat(full, "/context")))


def test_the_choice_can_come_from_the_environment_and_the_config_file(full, config, monkeypatch):
    config.write_text("window = 9\nsinks = 2\n")
    monkeypatch.setenv("MISTRAL_MLX_KV_BITS", "8")
    facts = json.loads(run("bench", full, "-p", "4", "-n", "2", "--repeats", "1", "--json").stdout)
    assert [facts[key] for key in ("window", "sinks", "kv_bits")] == [9, 2, 8]
    assert "kv_bits" not in json.loads(run("info", full, "--json").stdout)


def test_eval_measures_the_choice_against_the_same_model(full, tmp_path):
    (tmp_path / "text").write_text(TEXT)
    asked = ("eval", "-m", full, "--against", full, "--text", tmp_path / "text", "--context", "64", "--json", "-q")
    found = {choice: json.loads(run(*asked, *choice).stdout) for choice in ((), ("--kv-bits", "8"), CHOSEN[:4])}
    plain, coded, windowed = (facts["comparison"]["kl"] for facts in found.values())
    assert abs(plain) < 1e-9 < coded < windowed
    assert [found[CHOSEN[:4]][key] for key in ("context", "window", "sinks", "kv_bits")] == [64, 9, 2, 16]


def test_info_says_the_bytes_of_each_choice(full, folder):
    facts = json.loads(run("info", full, "--json").stdout)
    elements = 2 * 2 * 512 * 2  # keys and values, layers, positions, heads
    assert [choice["bytes"] for choice in facts["kv_bytes_by_choice"]] == [elements * 8 * 4, elements * (8 + 4)]
    longer = write_tiny_folder(full.parent / "longer", sliding_window=None, max_position_embeddings=8192)
    text = run("info", longer).stdout.decode()
    assert "there with --kv-bits 8\n" in text
    assert "there with --window 4096 --sinks 4 --kv-bits 8\n" in text
    assert "there with --kv-bits 8\n" in run("info", folder).stdout.decode()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kv-bits", "4"), "kv_bits is 4; it must be 16 or 8"),
        (("--sinks", "4"), "sinks need a window"),
        (("--window", "9", "--sinks", "65"), "sinks is 65; it must be 0 to 64"),
        (("--window", "512"), "the model sees no more than 512 tokens"),
    ],
)
def test_what_makes_no_sense_is_one_line(full, options, message):
    result = run("complete", "-m", full, *options, "x")
    assert (result.returncode, result.stdout) == (2, b"")
    assert message in one_line(result.stderr)


def test_the_defaults_of_the_options_are_those_of_the_engine():
    assert CacheOptions(sinks=shared.SINKS, kv_bits=shared.KV_BITS) == DEFAULT
