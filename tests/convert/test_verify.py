"""`--verify`: the loss of a conversion, measured block by block against its source."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers.convert_sources import CONFIG, random_weights, write_folder
from helpers.tokenizer_files import byte_level_json

from mistral_mlx.cli.app import app
from mistral_mlx.cli.reports.convert import show
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.convert import convert
from mistral_mlx.convert.verify.verify import MAX_WINDOWS, Verification
from mistral_mlx.errors import OptionError
from mistral_mlx.measure.evaluation import evaluate, model_logits, windows
from mistral_mlx.measure.scores import SCORE, evaluation
from mistral_mlx.model.loading import load, load_model

TEXT = "A text that is long enough to fill a window. " * 30


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = write_folder(tmp_path / "source", {**CONFIG, "vocab_size": 600})
    (folder / "tokenizer.json").write_text(byte_level_json())
    return folder


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "text.txt"


@pytest.mark.usefixtures("exact_products")
def test_the_report_says_what_evaluating_both_says(tmp_path: Path, source: Path, text: Path) -> None:
    found = convert(source, tmp_path / "target", bits=3, verify_on=text).verified
    model, tokenizer = load(tmp_path / "target")
    cut = windows(tokenizer.encode(TEXT), limit=MAX_WINDOWS)
    expected = evaluate(cut, model_logits(model), model_logits(load_model(source)))
    assert found is not None and found.comparison is not None and expected.comparison is not None
    assert found.n_tokens == expected.n_tokens > 200
    assert found.perplexity.value == pytest.approx(expected.perplexity.value, rel=1e-5)
    assert found.comparison.kl.value == pytest.approx(expected.comparison.kl.value, rel=1e-3)
    assert found.comparison.kl.value > 1e-4


def test_what_is_carried_without_loss_loses_nothing(tmp_path: Path, source: Path) -> None:
    found = convert(source, tmp_path / "target", rules=[".=none"], verify_on=True).verified
    assert found is not None and found.comparison is not None
    assert found.comparison.kl.value < 1e-9 and found.comparison.same_top.value == 1


@pytest.mark.parametrize(
    ("kl", "verdict"),
    [(0.0, "almost no loss"), (0.02, "noticeable loss"), (0.2, "strong loss"), (1.0, "unusable"), (12.3, "unusable")],
)
def test_the_verdict_is_that_of_the_docs_and_a_strong_loss_is_a_warning(kl: float, verdict: str) -> None:
    found = Verification(evaluation([np.array([(1, 1.0, 1.0, kl, 1.0)] * 2, SCORE)], compared=True))
    assert found.verdict == verdict
    assert f"| {verdict} |" in (Path(__file__).parents[2] / "docs" / "convert.md").read_text("utf-8")
    assert (found.warning is not None) is (kl >= 0.2)
    assert found.warning is None or "take more bits" in found.warning


def test_a_ruined_model_is_called_so(tmp_path: Path, source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A ruined model was reported with figures alone, a perplexity "+16745934.73%" among them, and no warning."""
    weights = {name: mx.array(w * 20) for name, w in random_weights({**CONFIG, "vocab_size": 600}).items()}
    loud = write_folder(tmp_path / "loud", {**CONFIG, "vocab_size": 600}, weights=weights)
    (loud / "tokenizer.json").write_text(byte_level_json())
    report = convert(loud, tmp_path / "target", bits=2, verify_on=True)
    show(report, Notes(), as_json=False)
    said = capfd.readouterr().err
    assert "  lost          unusable: the same next token " in said and " of the time\n" in said
    assert " times), " in said and "warning: the result cannot be used (unusable); take more bits" in said


def test_an_error_while_verifying_leaves_the_conversion_done(
    tmp_path: Path, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command ended with status 3, as if nothing had been written."""
    weights = {name: mx.array(w) for name, w in random_weights({**CONFIG, "vocab_size": 600}).items()}
    weights["model.norm.weight"][3] = mx.nan
    damaged = write_folder(tmp_path / "damaged", {**CONFIG, "vocab_size": 600}, weights=weights)
    (damaged / "tokenizer.json").write_text(byte_level_json())
    arguments = ["convert", str(damaged), str(tmp_path / "target"), "--allow-nonfinite", "--verify"]
    with pytest.raises(SystemExit) as raised:
        app(arguments)
    assert raised.value.code == 9
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("mistral-mlx: error: ") and "is damaged" not in last.partition(" is written, ")[0]
    assert "is written, but it could not be compared with its source: " in last and last.endswith("are damaged")
    assert load_model(tmp_path / "target")


def test_a_dry_run_verifies_nothing(tmp_path: Path, source: Path, text: Path) -> None:
    assert convert(source, tmp_path / "target", verify_on=text, dry_run=True).verified is None


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b" ", b"x"])
def test_a_text_that_cannot_be_used_is_said_before_anything_is_written(
    tmp_path: Path, source: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(OptionError, match=r"bad\.txt (cannot be read|is no text|is empty|has 1 token)"):
        convert(source, tmp_path / "target", verify_on=tmp_path / "bad.txt")
    assert not (tmp_path / "target").exists()


def test_a_window_is_no_longer_than_the_model_was_trained_for(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "short", {**CONFIG, "vocab_size": 600, "max_position_embeddings": 128})
    (source / "tokenizer.json").write_text(byte_level_json())
    found = convert(source, tmp_path / "target", verify_on=True).verified
    assert found is not None and found.n_tokens == 63 * found.n_windows


def test_without_a_tokenizer_there_is_nothing_to_verify_with(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no tokenizer"):
        convert(write_folder(tmp_path / "plain"), tmp_path / "target", verify_on=True)
