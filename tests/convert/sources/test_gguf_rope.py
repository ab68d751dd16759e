"""GGUF files with scaled rotary positions and of the architecture mistral3, and what `export` writes of them."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers.convert_sources import CONFIG, write_folder
from helpers.gguf_contents import metadata, tensors
from helpers.plain_gguf import plain
from oracles.graphs import CONFIGS, POSITIONS, random_ids, random_weights

from mistral_mlx.convert import convert
from mistral_mlx.convert.export.gguf_export import export_gguf
from mistral_mlx.convert.sources.open import open_source
from mistral_mlx.errors import CheckpointError, ConfigError, ConversionError
from mistral_mlx.model.args import ModelArgs, expected_shapes
from mistral_mlx.model.loading import load_model
from mistral_mlx.model.rope import Llama3, Yarn

MADE = json.loads((Path(__file__).parents[2] / "oracles" / "transformers_logits.json").read_text())
DEVSTRAL = {  # as llama.cpp writes Devstral Small 2
    "rope__scaling__type": "yarn",
    "rope__scaling__factor": 48.0,
    "rope__scaling__original_context_length": 8192,
    "rope__scaling__yarn_beta_fast": 32.0,
    "rope__scaling__yarn_beta_slow": 1.0,
    "rope__scaling__yarn_log_multiplier": 1.0,
    "attention__temperature_scale": 0.1,
}
LENGTH = 1 + 0.1 * np.log(48)


def args_of(tmp_path: Path, **keys: object) -> ModelArgs:
    return open_source(plain(tmp_path / "x.gguf", **keys)).args


def test_mistral3_without_scaling_is_the_mistral_graph(tmp_path: Path) -> None:
    """Mistral Small 3.1 to Devstral Small 1.1: the same tensors in the same order of rows as `llama`."""
    convert(plain(tmp_path / "a.gguf"), tmp_path / "llama")
    convert(plain(tmp_path / "b.gguf", architecture="mistral3"), tmp_path / "mistral3")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("llama", "mistral3")]
    assert files[0] == files[1]
    args = load_model(tmp_path / "mistral3").args
    assert (args.model_type, args.sliding_window, args.rope_scaling) == ("mistral", (None, None), None)


def test_mistral3_with_scaling_is_ministral3(tmp_path: Path) -> None:
    args = args_of(tmp_path, architecture="mistral3", **DEVSTRAL)
    assert (args.model_type, args.sliding_window) == ("ministral3", (None, None))
    assert (args.rope_scaling, args.query_scale) == (Yarn(48.0, 8192), (0.1, 8192))


@pytest.mark.parametrize(
    ("keys", "length"),
    [
        ({"rope__scaling__yarn_log_multiplier": 0.0}, LENGTH),
        ({"rope__scaling__yarn_log_multiplier": 0.5}, LENGTH / (1 + 0.05 * np.log(48))),
        ({"rope__scaling__attn_factor": 2.0}, 2.0),
        ({"rope__scaling__attn_factor": 2.0, "rope__scaling__yarn_log_multiplier": 0.0}, 2 * LENGTH),
    ],
    ids=str,
)
def test_the_attention_factor_is_that_of_llama_cpp(tmp_path: Path, keys: dict[str, float], length: float) -> None:
    args = args_of(tmp_path, architecture="mistral3", **{**DEVSTRAL, **keys})
    assert isinstance(args.rope_scaling, Yarn)
    assert args.rope_scaling.attention_factor == pytest.approx(length, rel=1e-7)


@pytest.mark.parametrize(("window", "family"), [(None, "llama"), (16, "mistral")])
def test_yarn_of_a_llama_file(tmp_path: Path, window: int | None, family: str) -> None:
    scaling = {
        key: value for key, value in DEVSTRAL.items() if key.startswith("rope__scaling__") and "_beta" not in key
    }
    args = args_of(tmp_path, **scaling, **({"attention__sliding_window": window} if window else {}))
    assert (args.model_type, args.sliding_window) == (family, (window, window))
    assert (args.rope_scaling, args.query_scale) == (Yarn(48.0, 8192), None)


def llama3_factors(factor: float) -> list[float]:
    """Return the factors that llama.cpp's converter computes for CONFIG."""
    factors = []
    for i in range(16):
        wave = 2 * np.pi * 10000.0 ** (2 * i / 32)
        smooth = (8192 / wave - 1) / 3
        factors.append(1 if wave < 2048 else factor if wave > 8192 else 1 / ((1 - smooth) / factor + smooth))
    return factors


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_factors_of_llama_3_become_its_keys(tmp_path: Path, factor: float) -> None:
    path = plain(tmp_path / "x.gguf", rope_factors=llama3_factors(factor))
    report = convert(path, tmp_path / "target")
    assert load_model(tmp_path / "target").args.rope_scaling == Llama3(factor, 1, 4, 8192)
    assert any("rope_freqs.weight is left out: it follows from rope_scaling" in note for note in report.notes)


@pytest.mark.parametrize("factors", [[2.0] * 16, llama3_factors(8.0)[:-1], [1.0] * 15 + [float("nan")], [-1.0] * 16])
def test_other_factors_are_refused(tmp_path: Path, factors: list[float]) -> None:
    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight scales the rotary frequencies, and not as Llama 3"):
        args_of(tmp_path, rope_factors=factors)


@pytest.mark.parametrize(
    ("architecture", "keys", "said"),
    [
        ("llama", {"attention__temperature_scale": 0.1}, r"llama\.attention\.temperature_scale is 0\.1"),
        ("mistral3", {"attention__temperature_scale": 0.1}, r"mistral3\.rope\.scaling\.original_context_length"),
        ("mistral3", {"rope__scaling__yarn_beta_fast": 32.0}, r"mistral3\.rope\.scaling\.yarn_beta_fast"),
        ("mistral3", DEVSTRAL | {"rope__scaling__yarn_ext_factor": 0.5}, r"mistral3\.rope\.scaling\.yarn_ext_factor"),
        ("mistral3", DEVSTRAL | {"rope__scaling__yarn_log_multiplier": -1.0}, r"yarn_log_multiplier is -1"),
        ("mistral3", DEVSTRAL | {"rope__scaling__factor": float("inf")}, "factor is inf"),
        ("mistral3", DEVSTRAL | {"attention__temperature_length": 7}, r"attention\.temperature_length"),
        ("mistral4", {}, "general.architecture mistral4 is not supported: Mistral Small 4 and Leanstral have"),
        ("deepseek2", {}, "general.architecture deepseek2 is not supported: Mistral Large 3 has"),
        ("mamba2", {}, "general.architecture mamba2 is not supported: Codestral Mamba has"),
        ("phi3", {}, "general.architecture phi3 is not supported; only 'llama' and 'mistral3' are"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path: Path, architecture: str, keys: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        args_of(tmp_path, architecture=architecture, **keys)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_comes_back_from_a_gguf(tmp_path: Path, name: str) -> None:
    """With the logits of transformers; but for the window, which llama.cpp has as one number for all layers."""
    args = ModelArgs.from_config(CONFIGS[name])
    shapes = expected_shapes(args)
    if args.tie_word_embeddings:
        del shapes["lm_head.weight"]
    weights = {key: mx.array(w) for key, w in random_weights(shapes).items()}
    export_gguf(write_folder(tmp_path / "model", CONFIGS[name], weights=weights), tmp_path / "x.gguf")
    convert(tmp_path / "x.gguf", tmp_path / "again", dequantize=True)
    model = load_model(tmp_path / "again")
    logits = np.array(model(mx.array(random_ids())[None])[0])[POSITIONS]
    assert (model.args.rope_scaling is None, model.args.query_scale) == (args.rope_scaling is None, args.query_scale)
    assert np.abs(logits - np.array(MADE["logits"][name])).max() < 2e-4


def test_scaling_is_described_as_llama_cpp_reads_it(tmp_path: Path) -> None:
    yarn = {"rope_type": "yarn", "factor": 48.0, "original_max_position_embeddings": 8192, "mscale": 1.0}
    even = {"rope_parameters": yarn | {"mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}}
    export_gguf(write_folder(tmp_path / "model", CONFIG | {"model_type": "ministral3"} | even), tmp_path / "x.gguf")
    found = metadata(tmp_path / "x.gguf")
    expected = {f"mistral3.{key.replace('__', '.')}": value for key, value in DEVSTRAL.items()}
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert found["general.architecture"] == "mistral3" and not any(key.startswith("llama.") for key in found)


def test_llama_3_is_written_as_factors(tmp_path: Path) -> None:
    keys = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    config = CONFIG | {"rope_scaling": {"rope_type": "llama3", **keys}}
    export_gguf(write_folder(tmp_path / "model", config), tmp_path / "x.gguf")
    kind, shape, data = tensors(tmp_path / "x.gguf")["rope_freqs.weight"]
    assert (kind, shape) == ("F32", (16,))
    np.testing.assert_allclose(np.frombuffer(data, np.float32), llama3_factors(8.0), rtol=1e-6)


def test_what_a_gguf_cannot_say_is_refused(tmp_path: Path) -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "truncate": False}
    folder = write_folder(tmp_path / "model", CONFIG | {"rope_scaling": yarn})
    with pytest.raises(ConversionError, match="truncate is false"):
        export_gguf(folder, tmp_path / "x.gguf")
