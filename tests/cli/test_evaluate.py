"""`eval` in a shell: figures, refusals, and its output after Ctrl-C."""

import io
import json
import math
import signal
import time
from functools import partialmethod

import pytest
from helpers.cli import interrupted, one_line, run
from helpers.models import tiny_config, tiny_model, tiny_weights, write_folder
from helpers.tiny_folder import TEXT, write_tiny_folder

from mistral_mlx.cli.commands import evaluate as evaluate_command
from mistral_mlx.cli.reports import evaluate as command
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.signals import Interrupted
from mistral_mlx.kernels import native
from mistral_mlx.measure.evaluation import DEFAULT_CONTEXT, Scoring, evaluate, model_logits, windows
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.tokenizer.choose import load_tokenizer

IDS = list(range(3, 64)) * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_folder(tmp_path_factory.mktemp("models") / "tiny", chat=False)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return write_tiny_folder(tmp_path_factory.mktemp("models") / "other", chat=False, seed=1)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_text(TEXT * 3, encoding="utf-8")
    return path


def test_json_is_one_object_with_all_figures(folder, other, text):
    result = run("eval", "-m", folder, "--against", other, "--text", text, "--context", "32", "--json")
    assert (result.returncode, result.stderr, result.stdout.count(b"\n")) == (0, b"", 1)
    facts = json.loads(result.stdout)
    asked = {key: facts[key] for key in ("model", "against", "context", "stride", "chunks")}
    assert asked == {"model": str(folder), "against": str(other), "context": 32, "stride": None, "chunks": None}
    assert facts["n_tokens"] == facts["n_windows"] * 15 > 0
    assert facts["perplexity"] == pytest.approx(math.exp(facts["nll"]))
    assert facts["perplexity_error"] == pytest.approx(facts["perplexity"] * facts["nll_error"])
    comparison = facts["comparison"]
    ratio = facts["perplexity"] / comparison["reference_perplexity"]
    assert comparison["perplexity_ratio"] == pytest.approx(ratio)
    assert comparison["kl"] > 0 and comparison["kl_error"] > 0 and 0 <= comparison["same_top"] <= 1
    assert facts["curve"][0].keys() == {"first", "last", "n_tokens", "nll", "kl"}


def test_the_text_gets_bos_as_the_model_wants_and_so_does_each_window(folder):
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(TEXT, bos=True)
    cut = command.Protocol(TEXT, 16).windows(tokenizer)
    assert cut == windows(ids, context=16, bos_id=tokenizer.bos_id)
    assert cut[0].ids == tuple(ids[:16])
    tokenizer.add_bos = False
    assert command.Protocol(TEXT, 16).windows(tokenizer) == windows(ids[1:], context=16)


@pytest.mark.cpu
def test_lines_for_people(folder, text):
    arguments = ("eval", "-m", folder, "--text", text, "--context", "32", "--stride", "8", "--chunks", "2")
    result = run(*arguments)
    assert (result.returncode, result.stderr) == (0, b"")
    lines = result.stdout.decode().splitlines()
    assert [line[:13].strip() for line in lines[:6]] == ["model", "perplexity", "nll", "tokens", "arithmetic", ""]
    assert lines[3][13:] == "16 scored in 2 windows of 32, the last 8 of each"
    assert lines[4][13:] == "exact"
    assert lines[6].startswith("positions    24 to 25: nll ")
    rounded = run(*arguments, "--no-exact").stdout.decode()
    assert ("arithmetic   as in answers" in rounded) == native.available
    against = run(*arguments, "--against", folder).stdout.decode()
    assert "\nKL           0.000000 ± 0.000000 on average, 0.000000 at most\n" in against
    assert "\nsame top     100.000 ± 0.000 %\n" in against


def test_standard_input_is_read_and_one_line_feed_at_its_end_dropped(folder, text):
    arguments = ("eval", "-m", folder, "--context", "32", "--text")
    assert run(*arguments, "-", input=text.read_bytes() + b"\n").stdout == run(*arguments, text).stdout


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "there is no text in"), (b"\n", "there is no text in"), (b"ab\xff", "is not UTF-8 text: byte 0xff at 2"),
     (b"short", "tokens, and one window takes 512; give a longer text or a smaller context"), (None, "cannot be read")],
)  # fmt: skip
def test_a_text_that_cannot_be_used_is_one_line_and_a_usage_error(folder, tmp_path, data, said):
    if data is not None:
        (tmp_path / "text").write_bytes(data)
    result = run("eval", "-m", folder, "--text", tmp_path / "text")
    assert (result.returncode, result.stdout) == (2, b"")
    assert said in one_line(result.stderr)


def test_a_window_beyond_the_context_is_refused(text, tmp_path):
    full = write_tiny_folder(tmp_path / "full", sliding_window=None, max_position_embeddings=16)
    result = run("eval", "-m", full, "--text", text, "--context", "17")
    assert (result.returncode, result.stdout) == (4, b"")
    assert "--context is 17, and the model's context 16" in one_line(result.stderr)
    assert run("eval", "-m", full, "--text", text, "--context", "16").returncode == 0


def test_a_reference_with_another_vocabulary_is_refused(folder, text, tmp_path):
    size = load_tokenizer(folder).vocab_size
    larger = write_tiny_folder(tmp_path / "larger", chat=False)
    config = tiny_config(vocab_size=size + 8)
    write_folder(larger, config, tiny_weights(ModelArgs.from_config(config)))
    asked = ("eval", "-m", folder, "--text", text, "--context", "32", "--against")
    result = run(*asked, larger)
    assert (result.returncode, result.stdout) == (3, b"")
    assert f"the models have {size} and {size + 8} tokens" in one_line(result.stderr)
    without_bos = write_tiny_folder(tmp_path / "without", chat=False)
    (without_bos / "tokenizer_config.json").write_text('{"add_bos_token": false}')
    result = run(*asked, without_bos)
    assert (result.returncode, result.stdout) == (3, b"")
    assert "the text is other tokens to the reference" in one_line(result.stderr)


def test_ctrl_c_ends_it_with_its_status_and_nothing_on_stdout(folder, tmp_path):
    (tmp_path / "text").write_text(TEXT * 400)
    started = time.monotonic()
    asked = ["eval", "-m", folder, "--text", tmp_path / "text", "--context", "64", "--stride", "1", "--quiet"]
    result = interrupted(asked, signal.SIGINT, after=lambda: time.monotonic() - started > 1.5)
    assert (result.returncode, result.stdout) == (130, b"")
    assert "interrupted" in one_line(result.stderr)


@pytest.mark.parametrize(("n_done", "quiet"), [(0, False), (2, False), (2, True)])
def test_who_interrupts_is_told_what_there_was(capsys, n_done, quiet):
    model, _ = tiny_model()
    cut, logits = windows(IDS, context=64, limit=3), model_logits(model)

    def interrupted_source(window):
        if window == cut[n_done]:
            raise Interrupted(signal.SIGINT)
        return logits(window)

    scoring = Scoring(interrupted_source)
    with pytest.raises(Interrupted), command._watched(scoring, 3, Notes(quiet=quiet)):
        list(map(scoring.add, cut))
    perplexity = evaluate(cut[:2], logits).perplexity
    said = f"mistral-mlx: after 2 of 3 windows: perplexity {perplexity[0]:.4f} ± {perplexity[1]:.4f}\n"
    assert capsys.readouterr().err == (said if n_done and not quiet else "")


@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_gets_a_bar_with_the_perplexity_so_far(monkeypatch, quiet):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(Notes, "progress", partialmethod(Notes.progress, delay_s=0))
    model, _ = tiny_model()
    cut = windows(IDS, context=64, limit=3)
    scoring = Scoring(model_logits(model))
    with command._watched(scoring, 3, Notes(quiet=quiet)) as show_bar:
        for window in cut:
            scoring.add(window)
            show_bar()
    first = f"perplexity {evaluate(cut[:1], model_logits(model)).perplexity.value:.4f}"
    assert (
        (first in screen.getvalue() and "1 of 3 windows" in screen.getvalue()) if not quiet else screen.getvalue() == ""
    )


def test_the_default_of_the_option_is_the_engines():
    assert evaluate_command.CONTEXT == DEFAULT_CONTEXT
