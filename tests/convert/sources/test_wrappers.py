"""Hugging Face folders in which a text model lies beside a vision tower or an audio encoder."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers.cli import GREEDY, run
from helpers.convert_sources import CONFIG, random_weights, write_folder, write_safetensors
from helpers.fp8_folders import PER_TENSOR, encoded
from helpers.tiny_folder import write_tiny_folder
from oracles.graphs import CONFIGS, POSITIONS, WRAPPED, random_ids
from oracles.graphs import random_weights as oracle_weights

from mistral_mlx.convert import convert
from mistral_mlx.convert.sources.open import open_source
from mistral_mlx.errors import CheckpointError, ConfigError
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.model.args import ModelArgs, expected_shapes
from mistral_mlx.model.loading import inspect_model, load_model, remarks

MADE = json.loads((Path(__file__).parents[2] / "oracles" / "transformers_logits.json").read_text())
TEXT = {key: value for key, value in CONFIG.items() if key not in ("architectures", "torch_dtype")}
OUTER = {"model_type": "mistral3", "architectures": ["Mistral3ForConditionalGeneration"], "torch_dtype": "float32"}
NAMES = {
    "transformers 4": ("language_model.model.", "language_model.lm_head.", ""),
    "transformers 5": ("model.language_model.", "lm_head.", "model."),
}
LEFT_OUT = "multi_modal_projector and vision_tower are left out: the text model runs alone"
NOTE = "multi_modal_projector and vision_tower are left out: the text model is converted alone"


def wrapped_names(layout: str) -> dict[str, str]:
    """Return the names in a wrapper by those where the text model stands alone."""
    model, head, _ = NAMES[layout]
    return {
        name: head + "weight" if name.startswith("lm_head") else model + name.removeprefix("model.")
        for name in random_weights(CONFIG)
    }


def wrapped(path: Path, layout: str, outer: dict[str, object] = OUTER, *, beside: tuple[str, ...] = ()) -> Path:
    """Write a wrapper of the usual tiny model."""
    names = wrapped_names(layout)
    weights = {names[name]: mx.array(w) for name, w in random_weights(CONFIG).items()}
    towers = beside or ("vision_tower.patch_conv", "multi_modal_projector.linear_1")
    weights |= {f"{NAMES[layout][2]}{tower}.weight": mx.zeros((2, 2, 3)) for tower in towers}
    return write_folder(path, outer if "text_config" in outer else outer | {"text_config": TEXT}, weights=weights)


@pytest.mark.parametrize("layout", NAMES)
def test_the_target_is_that_of_the_text_model_alone(tmp_path: Path, layout: str) -> None:
    convert(write_folder(tmp_path / "alone"), tmp_path / "expected")
    report = convert(wrapped(tmp_path / "wrapped", layout), tmp_path / "target")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("expected", "target")]
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("expected", "target")]
    assert files[0] == files[1]
    assert configs[0] == configs[1]
    assert NOTE in report.notes


@pytest.mark.parametrize("layout", NAMES)
def test_the_folder_itself_is_the_same_model(tmp_path: Path, layout: str) -> None:
    ids = mx.array([[3, 1, 4, 1, 5]])
    expected = load_model(write_folder(tmp_path / "alone"))(ids)
    assert mx.array_equal(load_model(wrapped(tmp_path / "wrapped", layout))(ids), expected)


@pytest.mark.parametrize("layout", NAMES)
def test_what_is_left_out_when_the_folder_runs_is_named(tmp_path: Path, layout: str) -> None:
    assert remarks(inspect_model(ModelFolder(wrapped(tmp_path / "wrapped", layout)))) == [LEFT_OUT]
    assert remarks(inspect_model(ModelFolder(write_folder(tmp_path / "alone")))) == []


def test_commands_say_once_what_is_left_out(tmp_path: Path) -> None:
    folder = write_tiny_folder(tmp_path / "model")
    weights = mx.load(str(folder / "model.safetensors"))
    weights = {f"language_model.{name}": w for name, w in weights.items()} | {"vision_tower.x.weight": mx.zeros((2, 2))}
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(OUTER | {"text_config": config}))
    said = b"mistral-mlx: vision_tower is left out: the text model runs alone\n"
    assert run("complete", "-m", folder, *GREEDY, "the").stderr.count(said) == 1
    assert run("chat", "-m", folder, *GREEDY, input=b"the\nking\n").stderr.count(said) == 1
    assert b"vision_tower is left out" in run("info", folder).stdout


@pytest.mark.parametrize("shapes", MADE["wrapped"]["shapes"], ids=["saved", "modules"])
@pytest.mark.parametrize("converted", [False, True])
def test_a_wrapper_of_transformers_gives_its_logits(
    tmp_path: Path, shapes: dict[str, list[int]], converted: bool
) -> None:
    """Ministral 3 as transformers names it, converted in full precision or as it is."""
    text = oracle_weights(expected_shapes(ModelArgs.from_config(CONFIGS[WRAPPED[1]])))
    weights = {}
    for name, shape in shapes.items():
        plain = name.replace("model.language_model.", "model.").removeprefix("language_model.")
        weights[name] = mx.array(text[plain]) if plain in text else mx.zeros(shape)
    folder = write_folder(tmp_path / "wrapped", MADE["wrapped"]["config"], weights=weights)
    if converted:
        convert(folder, tmp_path / "target", dequantize=True)
        folder = tmp_path / "target"
    logits = np.array(load_model(folder)(mx.array(random_ids())[None])[0])[POSITIONS]
    assert np.abs(logits - np.array(MADE["logits"][WRAPPED[0]])).max() < 2e-4


def test_fp8_of_a_wrapper_is_that_of_its_text_model(tmp_path: Path) -> None:
    """As Ministral 3 has it: a scale for each matrix but the head, and a vision tower that is left plain."""
    names, stored, dtypes, expected = wrapped_names("transformers 5"), {}, {}, {}
    for name, w in random_weights(CONFIG).items():
        stored[names[name]] = expected[name] = w
        if w.ndim == 2 and name.startswith("model.layers"):
            scale = np.float32(np.abs(w).max() / 448)
            stored[names[name]], expected[name] = encoded(w, scale)
            stored[names[name] + "_scale_inv"], dtypes[names[name]] = scale, "F8_E4M3"
            stored[names[name].removesuffix("weight") + "activation_scale"] = np.float32(1)
    stored["model.vision_tower.patch_conv.weight"] = np.zeros((2, 2, 3), np.float32)
    folder = tmp_path / "wrapped"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(OUTER | {"text_config": TEXT, "quantization_config": PER_TENSOR}))
    write_safetensors(folder / "model.safetensors", stored, dtypes)
    convert(folder, tmp_path / "target", dequantize=True, dtype="float32")
    found = mx.load(str(tmp_path / "target" / "model.safetensors"))
    assert set(found) == set(expected)
    for name, w in expected.items():
        np.testing.assert_allclose(np.array(found[name]), w, rtol=1e-6, err_msg=name)


def test_a_packed_wrapper_is_read_as_it_is(tmp_path: Path) -> None:
    """As mlx-community has them: rules by module under the wrapper's names, the towers not packed."""
    convert(write_folder(tmp_path / "alone"), tmp_path / "packed", bits=4, rules=["lm_head=8"])
    names, config = wrapped_names("transformers 4"), json.loads((tmp_path / "packed" / "config.json").read_text())
    rule = config["quantization"] | {"language_model.lm_head": config["quantization"].pop("lm_head")}
    weights = {"vision_tower.patch_conv.weight": mx.zeros((2, 2, 3))}
    for name, array in mx.load(str(tmp_path / "packed" / "model.safetensors")).items():
        path, _, part = name.rpartition(".")
        weights[names[f"{path}.weight"].removesuffix("weight") + part] = array
    folder = write_folder(tmp_path / "wrapped", OUTER | {"text_config": TEXT, "quantization": rule}, weights=weights)
    ids = mx.array([[3, 1, 4, 1, 5]])
    expected = load_model(tmp_path / "packed")(ids)
    assert mx.array_equal(load_model(folder)(ids), expected)
    convert(folder, tmp_path / "plain", dequantize=True)
    assert mx.allclose(load_model(tmp_path / "plain")(ids), expected, atol=1e-2)


def test_voxtral_is_its_text_model(tmp_path: Path) -> None:
    text = {key: value for key, value in TEXT.items() if key not in ("rope_theta", "model_type", "sliding_window")}
    folder = wrapped(
        tmp_path / "wrapped",
        "transformers 4",
        {"model_type": "voxtral", "text_config": text},
        beside=("audio_tower.conv1", "multi_modal_projector.linear_1"),
    )
    report = convert(folder, tmp_path / "target")
    args = load_model(tmp_path / "target").args
    assert (args.model_type, args.rope_theta, args.max_position_embeddings) == ("llama", 1e8, 512)
    assert "audio_tower and multi_modal_projector are left out: the text model is converted alone" in report.notes


def test_the_config_of_the_text_model_gets_what_the_wrapper_says(tmp_path: Path) -> None:
    text = TEXT | {"eos_token_id": 2, "auto_map": {"AutoModel": "x.Evil"}}
    outer = OUTER | {"text_config": text, "eos_token_id": [2, 9], "auto_map": {"AutoModel": "x.Evil"}}
    config = dict(open_source(wrapped(tmp_path / "wrapped", "transformers 4", outer)).config)
    assert (config["eos_token_id"], config["torch_dtype"]) == ([2, 9], "float32")
    assert (config["architectures"], "auto_map" in config) == (["MistralForCausalLM"], False)


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        ({"rope_theta": 5.0}, {"rope_theta": 5.0}),
        (
            {"rope_parameters": {"rope_theta": 5.0}},
            {"rope_theta": 5.0, "rope_parameters": {"rope_theta": 5.0, "rope_type": "default"}},
        ),
    ],
)
def test_rotary_positions_are_written_for_every_program(
    tmp_path: Path, rope: dict[str, object], expected: dict[str, object]
) -> None:
    """mlx-lm reads rope_theta, transformers 5 rope_parameters."""
    config = {key: value for key, value in CONFIG.items() if key != "rope_theta"}
    found = open_source(write_folder(tmp_path / "source", config | rope)).config
    assert {key: value for key, value in found.items() if key.startswith("rope")} == expected


def test_scaled_positions_are_written_in_both_spellings(tmp_path: Path) -> None:
    old = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    found = open_source(write_folder(tmp_path / "source", CONFIG | {"rope_scaling": old})).config
    both = old | {"rope_type": "yarn", "rope_theta": 10000.0}
    assert (found["rope_scaling"], found["rope_parameters"], found["rope_theta"]) == (both, both, 10000.0)


def test_a_tensor_under_two_names_is_refused(tmp_path: Path) -> None:
    folder = wrapped(tmp_path / "wrapped", "transformers 5")
    tensors = mx.load(str(folder / "model.safetensors"))
    mx.save_safetensors(str(folder / "model.safetensors"), tensors | {"model.norm.weight": mx.zeros((128,))})
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight twice, as model\.language_model\.norm\.weight and"):
        convert(folder, tmp_path / "target")


@pytest.mark.parametrize(
    ("outer", "inner", "said"),
    [
        ("mistral3", "mistral4", "Mistral Small 4 and Leanstral"),
        ("mistral_large4", "mistral_large4_text", "Mistral Large 4"),
        ("mistral3", "deepseek_v3", "Mistral Large 3"),
        ("mamba2", None, "Codestral Mamba"),
        ("voxtral_realtime", "voxtral_realtime_text", "Voxtral Realtime"),
        ("voxtral_tts", "mistral", "Voxtral TTS"),
    ],
)
def test_models_with_another_graph_are_refused_by_their_names(outer: str, inner: str | None, said: str) -> None:
    config = (
        {**TEXT, "model_type": outer}
        if inner is None
        else {"model_type": outer, "text_config": {**TEXT, "model_type": inner}}
    )
    with pytest.raises(ConfigError, match=f"is not supported: {said} has|is not supported: {said} have") as caught:
        ModelArgs.from_config(config)
    assert "\n" not in str(caught.value)
