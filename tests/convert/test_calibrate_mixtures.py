"""Calibrated conversion of a mixture: every expert by the inputs of the tokens that chose it."""

import itertools
import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers.convert_sources import write_folder
from helpers.mixtures import EXPERTS, MIXTRAL, ROUTER, Weights, weights_of
from helpers.tokenizer_files import byte_level_json, write_json

from mistral_mlx import kernels
from mistral_mlx.convert import convert
from mistral_mlx.convert.rounding import inputs as calibrate
from mistral_mlx.convert.rounding.compensate import compensated
from mistral_mlx.convert.rounding.inputs import Inputs, block_inputs, calibration_windows
from mistral_mlx.convert.rounding.sensitivity import sensitivities
from mistral_mlx.convert.rounding.streamed import source_logits
from mistral_mlx.convert.sources.open import open_source
from mistral_mlx.kernels.fallback.packing import host
from mistral_mlx.measure.evaluation import evaluate, model_logits, windows
from mistral_mlx.model.loading import load
from mistral_mlx.model.packing import Packing

TOKENIZER = json.loads(byte_level_json())
VOCABULARY = 1 + max(TOKENIZER["model"]["vocab"].values())
CONFIG = {**MIXTRAL, "vocab_size": VOCABULARY, "max_position_embeddings": 64}
TEXT = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 40
LAYER = "model.layers.1"


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(calibrate, "CONTEXT", 64)
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "text.txt"


def folder(path: Path, weights: Weights, config: dict[str, object] = CONFIG) -> Path:
    write_folder(path, config, weights={name: mx.array(w) for name, w in weights.items()})
    write_json(path, "tokenizer.json", TOKENIZER)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return folder(tmp_path / "source", weights_of(CONFIG))


def inputs_of(source: Path, text: Path) -> dict[str, Inputs]:
    opened = open_source(source)
    with kernels.exactly():
        rounds = block_inputs(opened, calibration_windows(opened, text), lambda done, of: None)
        return {path: inputs for found in rounds for path, inputs in found.items()}


def rows(target: Path, module: str, e: int) -> list[np.ndarray]:
    """The packed parts of one expert's matrix."""
    found = mx.load(str(target / "model.safetensors"))
    return [np.array(found[f"{LAYER}{EXPERTS}{module}.{part}"][e]) for part in ("weight", "scales", "biases")]


def test_the_streamed_pass_gives_the_logits_of_the_whole_model(source: Path) -> None:
    model = load(source)[0]
    chunks = windows(np.random.default_rng(0).integers(0, VOCABULARY, 130).tolist(), context=40)
    for chunk in chunks:
        (ours,) = source_logits(open_source(source), chunks)(chunk)
        whole = mx.concatenate(list(model_logits(model)(chunk)))
        np.testing.assert_allclose(np.array(ours), np.array(whole), rtol=0, atol=2e-3 * float(mx.abs(whole).max()))


def test_every_token_is_an_input_of_as_many_experts_as_it_uses(source: Path, text: Path) -> None:
    seen = inputs_of(source, text)
    of_experts = sum(seen[f"{LAYER}{EXPERTS}gate_proj.{e}"].squares for e in range(4))
    np.testing.assert_allclose(of_experts, 2 * seen[f"{LAYER}{ROUTER[:-1]}"].squares, rtol=1e-4)


def test_every_expert_is_compensated_by_its_own_inputs(source: Path, text: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "target", bits=3, calibrate=text)
    seen, weights = inputs_of(source, text), weights_of(CONFIG)
    for module, e in itertools.product(("gate_proj", "up_proj", "down_proj"), range(4)):
        found = compensated(
            weights[f"{LAYER}{EXPERTS}{module}.weight"][e], seen[f"{LAYER}{EXPERTS}{module}.{e}"], Packing(3, 64), "F32"
        )
        packed = rows(tmp_path / "target", module, e)[0]
        assert (packed == found.weight.view("<u4")).mean() > 0.99  # sums of other shapes round otherwise


def test_an_expert_that_no_token_chose_is_rounded_without_a_text(text: Path, tmp_path: Path) -> None:
    """Of rows w, -w, 0 and 0, one of the first two is always the largest."""
    config = CONFIG | {"num_experts_per_tok": 1}
    weights = weights_of(config)
    router = weights[f"{LAYER}{ROUTER}weight"]
    router[1], router[2:] = -router[0], 0
    convert(folder(tmp_path / "source", weights, config), tmp_path / "target", bits=4, calibrate=text)
    assert f"{LAYER}{EXPERTS}up_proj.2" not in inputs_of(tmp_path / "source", text)
    for e, weighed in ((0, True), (2, False)):
        raw = host(mx.array(weights[f"{LAYER}{EXPERTS}up_proj.weight"][e]))
        found = kernels.quantize(raw, "F32", "F32", group_size=64, bits=4, search=True)
        alike = np.array_equal(rows(tmp_path / "target", "up_proj", e)[0], found.weight.view("<u4"))
        assert alike is not weighed


@pytest.mark.parametrize("method", ["search", "compensate"])
def test_a_text_makes_a_better_mixture_of_the_same_size(source: Path, text: Path, tmp_path: Path, method: str) -> None:
    plain = convert(source, tmp_path / "plain", bits=6)
    better = convert(source, tmp_path / "better", bits=6, calibrate=text, method=method)
    assert plain.target_bytes == better.target_bytes
    chunks = calibration_windows(open_source(source), text)[:2]
    reference = source_logits(open_source(source), chunks)

    def loss(path: Path) -> float:
        comparison = evaluate(chunks, model_logits(load(path)[0]), reference).comparison
        assert comparison is not None
        return comparison.kl.value

    assert loss(tmp_path / "better") < 0.8 * loss(tmp_path / "plain")


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_size_that_was_asked_for_is_met_from_below(
    source: Path, text: Path, tmp_path: Path, calibrated: bool
) -> None:
    report = convert(source, tmp_path / "target", target_bpw=4.6, calibrate=text if calibrated else None)
    assert 4.5 < report.bits_per_weight <= 4.6
    load(tmp_path / "target")


def test_a_text_says_what_every_kind_costs_but_the_router(source: Path, text: Path) -> None:
    opened = open_source(source)
    costs = sensitivities(opened, calibration_windows(opened, text), lambda done, of: None)
    paths = {path.removesuffix(".weight") for path in opened.tensors if opened.tensors[path].shape[1:]}
    assert set(costs) == {path for path in paths if not path.endswith(ROUTER[:-1])}
    assert min(costs.values()) > 0
