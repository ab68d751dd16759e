"""Folders in Mistral's own layout of the models since 2025: scaled positions, vision and audio, other graphs."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers.convert_sources import CONFIG, PARAMS, native_weights, random_weights, write_folder, write_native
from oracles.graphs import MINISTRAL3, POSITIONS, random_ids
from oracles.graphs import random_weights as oracle_weights

from mistral_mlx.convert import convert
from mistral_mlx.convert.sources.open import open_source
from mistral_mlx.errors import ConfigError
from mistral_mlx.model.args import ModelArgs, expected_shapes
from mistral_mlx.model.loading import load_model
from mistral_mlx.model.rope import Yarn

MADE = json.loads((Path(__file__).parents[2] / "oracles" / "transformers_logits.json").read_text())
YARN = {"factor": 16.0, "original_max_position_embeddings": 16, "beta": 32, "alpha": 1, "apply_scale": False}
SCALE = {"beta": 0.1, "original_max_position_embeddings": 16}
LENGTH = 1 + 0.1 * np.log(16)


def args_of(tmp_path: Path, **params: object) -> ModelArgs:
    return open_source(write_native(tmp_path / "native", {**PARAMS, **params})).args


def test_ministral_3_has_the_logits_of_transformers(tmp_path: Path) -> None:
    """The weights of the case `ministral3` under Mistral's own names, with rotary rows in pairs."""
    weights = oracle_weights(expected_shapes(ModelArgs.from_config(MINISTRAL3)))
    params = {
        "dim": 32, "n_layers": 2, "head_dim": 16, "hidden_dim": 48, "n_heads": 4, "n_kv_heads": 2, "norm_eps": 1e-5,
        "vocab_size": 24, "rope_theta": 1e6, "max_position_embeddings": 256, "tied_embeddings": False,
        "yarn": YARN, "llama_4_scaling": SCALE,
    }  # fmt: skip
    stored = {name: mx.array(w) for name, w in native_weights(weights).items()}
    convert(write_native(tmp_path / "native", params, weights=stored), tmp_path / "target", dequantize=True)
    model = load_model(tmp_path / "target")
    logits = np.array(model(mx.array(random_ids())[None])[0])[POSITIONS]
    assert np.abs(logits - np.array(MADE["logits"]["ministral3"])).max() < 2e-4


@pytest.mark.parametrize(
    ("params", "scaling", "query_scale"),
    [
        ({"yarn": YARN, "llama_4_scaling": SCALE}, Yarn(16, 16), (0.1, 16)),
        ({"yarn": YARN}, Yarn(16, 16), None),
        ({"yarn": YARN | {"apply_scale": True, "beta": 4}}, Yarn(16, 16, 4, 1, LENGTH), None),
        ({"yarn": {"factor": 16, "original_max_position_embeddings": 16}}, Yarn(16, 16, 32, 1, LENGTH), None),
        ({"llama_4_scaling": SCALE}, None, (0.1, 16)),
        ({"yarn": YARN, "llama_4_scaling": SCALE | {"beta": 0.0}}, Yarn(16, 16), None),
    ],
)
def test_scaling_reaches_the_engine(
    tmp_path: Path, params: dict[str, object], scaling: Yarn | None, query_scale: tuple[float, int] | None
) -> None:
    args = args_of(tmp_path, **params)
    assert (args.model_type, args.rope_scaling, args.query_scale) == ("ministral3", scaling, query_scale)


def test_the_config_has_what_mlx_lm_and_transformers_read(tmp_path: Path) -> None:
    config = open_source(write_native(tmp_path / "native", {**PARAMS, "yarn": YARN, "llama_4_scaling": SCALE})).config
    rope = config["rope_parameters"]
    assert config["rope_scaling"] == rope == {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 16.0, "original_max_position_embeddings": 16,
        "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
    }  # fmt: skip
    assert config["architectures"] == ["Ministral3ForCausalLM"]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"yarn": YARN | {"something": 1}}, r"yarn\.something is 1"),
        ({"yarn": YARN | {"factor": "16"}}, r"yarn\.factor is '16'"),
        ({"yarn": YARN | {"apply_scale": 1}}, r"yarn\.apply_scale is 1"),
        ({"yarn": [YARN]}, "yarn is "),
        ({"llama_4_scaling": {"beta": 0.1}}, r"llama_4_scaling\.original_max_position_embeddings is missing"),
        ({"yarn": YARN, "llama_4_scaling": SCALE | {"original_max_position_embeddings": 8}}, "disagree"),
        ({"kv_lora_rank": 512}, "kv_lora_rank is 512, which is not supported: Mistral Large 3, Large 4, Small 4"),
        ({"model_type": "mamba"}, "Codestral Mamba has"),
        ({"ada_rms_norm_t_cond": True}, "Voxtral Realtime has"),
        ({"multimodal": {"audio_model_args": {"x": 1}}}, "Voxtral TTS has"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path: Path, params: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        args_of(tmp_path, **params)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("params.json: ")


def multimodal(tmp_path: Path, section: dict[str, object], embeddings: str, beside: list[str]) -> Path:
    weights = native_weights(random_weights(CONFIG))
    weights[f"{embeddings}tok_embeddings.weight"] = weights.pop("tok_embeddings.weight")
    weights |= {name: np.ones(8, np.float32) for name in beside}
    stored = {name: mx.array(w) for name, w in weights.items()}
    return write_native(tmp_path / "native", {**PARAMS, **section}, weights=stored)


@pytest.mark.parametrize(
    ("section", "embeddings", "beside", "said"),
    [
        (
            {"multimodal": {"whisper_model_args": {"encoder_args": {"dim": 8}}}},
            "mm_whisper_embeddings.",
            ["mm_whisper_embeddings.whisper_encoder.conv_layers.0.weight"],
            "mm_whisper_embeddings is left out",
        ),
        (
            {"multimodal": {"vision_encoder_args": {"hidden_size": 8}}},
            "",
            ["vision_encoder.ln_pre.weight", "vision_language_adapter.w_in.weight"],
            "vision_encoder and vision_language_adapter are left out",
        ),
    ],
    ids=["Voxtral", "newer vision"],
)
def test_the_text_model_is_converted_alone(
    tmp_path: Path, section: dict[str, object], embeddings: str, beside: list[str], said: str
) -> None:
    convert(write_folder(tmp_path / "hf"), tmp_path / "from-hf")
    report = convert(multimodal(tmp_path, section, embeddings, beside), tmp_path / "target")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("from-hf", "target")]
    assert files[0] == files[1]
    assert report.notes[0] == f"{said}: the text model is converted alone"
