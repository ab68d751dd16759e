"""What a conversion lost is measured against its source, run block by block."""

from pathlib import Path

import pytest
from helpers.convert_sources import CONFIG, write_folder
from helpers.tokenizer_files import byte_level_json

from mistral_mlx.convert import convert
from mistral_mlx.convert.verify.verify import MAX_WINDOWS
from mistral_mlx.errors import OptionError
from mistral_mlx.measure.evaluation import evaluate, model_logits, windows
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


def test_a_dry_run_verifies_nothing(tmp_path: Path, source: Path, text: Path) -> None:
    assert convert(source, tmp_path / "target", verify_on=text, dry_run=True).verified is None


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b" ", b"x"])
def test_a_text_that_cannot_be_used_is_said_before_anything_is_written(
    tmp_path: Path, source: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(OptionError, match=r"bad\.txt (cannot be read|is no text|is empty|has 1 tokens)"):
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
