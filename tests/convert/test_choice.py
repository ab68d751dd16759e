"""Bits, recipes and rules: config.json and the files have what the user asked for."""

from pathlib import Path

import mlx.core as mx
import pytest
from helpers.arrays import arrays
from helpers.convert_sources import CONFIG, random_weights, write_folder
from helpers.plain_gguf import plain

from mistral_mlx.convert import convert
from mistral_mlx.convert.plan.choice import RECIPES, make_choice
from mistral_mlx.errors import OptionError
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.loading import load_model
from mistral_mlx.model.packing import Packing

N_LAYERS = 32


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "source")


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_give_the_bits_mlx_lm_gives(recipe: str) -> None:
    import mlx.nn as nn
    from mlx_lm.convert import mixed_quant_predicate_builder

    paths = [f"model.layers.{i}.{name}" for i in range(N_LAYERS) for name in ("self_attn.v_proj", "mlp.down_proj")]
    paths += ["model.embed_tokens", "lm_head", "model.layers.0.self_attn.q_proj"]

    class Stand(nn.Module):
        layers = range(N_LAYERS)

        def named_modules(self):  # type: ignore[no-untyped-def]
            return [(path, None) for path in paths]

    theirs = mixed_quant_predicate_builder(recipe, Stand(), 64)
    ours = make_choice(recipe=recipe)
    for path in paths:
        packing, _ = ours.of(path, 4096, N_LAYERS)
        assert packing is not None and packing.as_config() == theirs(path, nn.Module())


def test_the_last_rule_that_matches_wins() -> None:
    choice = make_choice(bits=4, rules=["proj=8", r"layers\.(0|31)\..*=6:32", "lm_head=none"])
    assert choice.of("model.layers.5.mlp.up_proj", 256, N_LAYERS)[0] == Packing(8, 64)
    assert choice.of("model.layers.31.mlp.up_proj", 256, N_LAYERS)[0] == Packing(6, 32)
    assert choice.of("model.embed_tokens", 256, N_LAYERS)[0] == Packing(4, 64)
    assert choice.of("lm_head", 256, N_LAYERS) == (None, "--rule lm_head=none keeps it")


def test_a_group_that_does_not_divide_becomes_smaller_unless_it_was_asked_for() -> None:
    assert make_choice(bits=5).of("a", 288, 1)[0] == Packing(5, 32)
    assert make_choice(bits=5, group_size=64).of("a", 288, 1)[0] is None
    assert make_choice(rules=["a=4:128"]).of("a", 288, 1)[0] is None
    assert make_choice(group_size=128, rules=["a=8"]).of("a", 288, 1)[0] == Packing(8, 32)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bits": 7}, "bits is 7; 2, 3, 4, 5, 6 or 8 is expected"),
        ({"group_size": 16}, "group_size is 16"),
        ({"recipe": "mixed_9"}, "mixed_2_6, mixed_3_4, mixed_3_6, mixed_4_6 are expected"),
        ({"recipe": "mixed_4_6", "bits": 4}, "exclude each other"),
        ({"rules": ["lm_head"]}, "it has no '='"),
        ({"rules": ["=8"]}, "nothing is before its '='"),
        ({"rules": ["lm_head=7"]}, "7 is no packing"),
        ({"rules": ["lm_head=8:16"]}, "8:16 is no packing"),
        ({"rules": ["(=8"]}, "rule (=8 is not understood"),
    ],
)
def test_what_cannot_be_done_is_said(options: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError) as raised:
        make_choice(**options)  # type: ignore[arg-type]
    assert words in str(raised.value)


def test_a_rule_that_matches_nothing_is_a_mistake(source: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="matches no weight"):
        convert(source, tmp_path / "target", rules=["layers\\.99=8"])


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_every_width_is_that_of_mx_quantize_and_loads(source: Path, tmp_path: Path, bits: int) -> None:
    convert(source, tmp_path / "target", bits=bits)
    name = "model.layers.0.mlp.down_proj"
    expected = mx.quantize(mx.array(random_weights(CONFIG)[f"{name}.weight"]), group_size=64, bits=bits)
    written = arrays(tmp_path / "target")
    for part, array in zip(("weight", "scales", "biases"), expected, strict=True):
        assert mx.array_equal(written[f"{name}.{part}"], array)
    load_model(tmp_path / "target")


def test_rules_and_recipes_are_recorded_where_loading_reads_them(source: Path, tmp_path: Path) -> None:
    report = convert(source, tmp_path / "target", recipe="mixed_3_6", rules=["lm_head=none", "q_proj=8:32"])
    model = load_model(tmp_path / "target")
    packed = ModelArgs.from_config(ModelFolder(tmp_path / "target").json("config.json")).quantization
    assert packed is not None and packed.usual == Packing(3, 64)
    assert packed.of("model.layers.1.self_attn.q_proj") == Packing(8, 32)
    assert report.kept == [("lm_head.weight", "--rule lm_head=none keeps it")]
    assert model.lm_head.parts.scales is None


def test_rules_touch_only_what_they_match_in_a_packed_source(tmp_path: Path) -> None:
    report = convert(plain(tmp_path / "q8.gguf", "Q8_0"), tmp_path / "target", rules=["layers.0.mlp=8"])
    assert {name for name, _ in report.errors} == {
        f"model.layers.0.mlp.{part}_proj.weight" for part in ("gate", "up", "down")
    }


def test_a_dry_run_says_what_else_there_is(source: Path, tmp_path: Path) -> None:
    choices = {choice.options: choice for choice in convert(source, tmp_path / "target", dry_run=True).choices}
    kept, eight = choices["--dequantize"], choices["--bits 8"]
    assert kept.bits_per_weight == 32 and 9 < eight.bits_per_weight < 9.1  # float32 scales
    assert eight.memory_bytes > eight.nbytes
    assert eight.nbytes == convert(source, tmp_path / "eight", bits=8).target_bytes
    half = convert(source, tmp_path / "target", dtype="float16", dry_run=True).choices
    assert {choice.options: choice.bits_per_weight for choice in half}["--dequantize"] == 16
