"""config.json: what is read, what is refused, and the messages."""

import math

import pytest
from helpers.models import tiny_config
from oracles.graphs import LLAMA3

from mistral_mlx.convert.sources import experts, native
from mistral_mlx.convert.sources.gguf import source as gguf_source
from mistral_mlx.errors import ConfigError
from mistral_mlx.model import blocks
from mistral_mlx.model.args import ModelArgs, expected_shapes
from mistral_mlx.model.packing import QuantizationArgs
from mistral_mlx.model.rope import Llama3, Yarn

YARN = {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 32, "rope_theta": 1e4}


def parse(**changes):
    return ModelArgs.from_config(tiny_config(**changes))


def without(key):
    return ModelArgs.from_config({k: v for k, v in tiny_config().items() if k != key})


def test_both_spellings_of_rope_theta_mean_the_same():
    new = {"rope_theta": 1e6, "rope_type": "default"}
    assert parse(rope_theta=1e6).rope_theta == 1e6
    assert parse(rope_theta=None, rope_parameters=new).rope_theta == 1e6
    assert parse(rope_theta=1e6, rope_parameters=new).rope_theta == 1e6
    assert without("rope_theta").rope_theta == 10_000


def test_both_spellings_of_a_scaling_mean_the_same():
    old = {"type": "yarn", "factor": 16.0, "original_max_position_embeddings": 32, "finetuned": True}
    assert parse(rope_scaling=old) == parse(rope_theta=None, rope_parameters=YARN)
    assert parse(rope_scaling=old) == parse(rope_scaling=old, rope_parameters=YARN)
    assert parse(rope_scaling=old).rope_scaling == Yarn(16, 32, attention_factor=1 + 0.1 * math.log(16))
    assert parse(rope_scaling=LLAMA3).rope_scaling == Llama3(8, 1, 4, 64)


def test_keys_of_yarn_that_are_null_or_neutral():
    neutral = {"beta_fast": 0, "beta_slow": None, "partial_rotary_factor": 1.0, "max_position_embeddings": 7}
    assert parse(rope_parameters=YARN | neutral) == parse(rope_parameters=YARN)
    assert parse(rope_parameters=YARN | {"factor": None}) == parse(rope_parameters=YARN)  # 512 positions of 32
    assert parse(rope_parameters=YARN | {"llama_4_scaling_beta": 0.0}) == parse(rope_parameters=YARN)
    even = YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}
    assert parse(rope_parameters=even | {"apply_yarn_scaling": False}) == parse(rope_parameters=even)


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({"sliding_window": 16}, (16, 16)),
        ({"sliding_window": None}, (None, None)),
        ({"sliding_window": [16, None]}, (16, None)),
        ({"sliding_window": [16]}, (16, 16)),
        ({"sliding_window": 16, "layer_types": ["full_attention", "sliding_attention"]}, (None, 16)),
        ({"sliding_window": None, "layer_types": ["full_attention"] * 2}, (None, None)),
        ({"model_type": "ministral", "sliding_window": 16}, (16, 16)),
        ({"model_type": "llama", "sliding_window": None}, (None, None)),
    ],
)
def test_the_window_of_each_layer(changes, windows):
    assert parse(**changes).sliding_window == windows


def test_an_absent_window_is_the_familys_default():
    assert without("sliding_window").sliding_window == (4096, 4096)
    llama = {k: v for k, v in tiny_config(model_type="llama").items() if k != "sliding_window"}
    assert ModelArgs.from_config(llama).sliding_window == (None, None)


def test_only_full_attention_has_a_context_limit():
    assert parse(sliding_window=8).context_limit is None
    assert parse(sliding_window=None).context_limit == 512
    assert parse(sliding_window=[8, None]).context_limit == 512


def test_head_dim_may_be_absent_or_its_own():
    assert parse().head_dim == 8
    assert parse(head_dim=12).head_dim == 12
    assert expected_shapes(parse(head_dim=12))["model.layers.1.self_attn.o_proj.weight"] == (32, 48)


def test_key_value_heads_are_the_familys_when_absent_and_all_heads_when_null():
    config = tiny_config(num_attention_heads=16)
    assert parse(num_attention_heads=16, num_key_value_heads=None).n_kv_heads == 16
    del config["num_key_value_heads"]
    assert ModelArgs.from_config(config).n_kv_heads == 8
    assert ModelArgs.from_config({**config, "model_type": "llama", "sliding_window": None}).n_kv_heads == 16


def test_text_config_is_the_model():
    args = ModelArgs.from_config({"model_type": "mistral3", "eos_token_id": [5], "text_config": tiny_config()})
    assert (args.dim, args.eos_token_ids) == (32, {2, 5})


def test_stop_ids_may_be_a_number_a_list_or_null():
    assert parse(eos_token_id=7).eos_token_ids == {7}
    assert parse(eos_token_id=[7, 8]).eos_token_ids == {7, 8}
    assert parse(eos_token_id=None).eos_token_ids == frozenset()


def test_quantization_may_differ_by_module():
    q = parse(quantization={"group_size": 64, "bits": 4, "lm_head": {"group_size": 32, "bits": 8}}).quantization
    assert q.of("lm_head") == (8, 32, "affine")
    assert q.of("model.layers.0.mlp.up_proj") == (4, 64, "affine")
    assert QuantizationArgs.from_config({"quantization_config": {"group_size": 32, "bits": 8}}).of("x") == (
        8,
        32,
        "affine",
    )
    assert parse().quantization is None


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"model_type": "gemma"}, "model_type"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 16.0}},
            "rope_parameters.original_max_position_embeddings",
        ),
        ({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 8}}, "rope_parameters.factor"),
        ({"rope_parameters": YARN | {"factor": 0.5}}, "rope_parameters.factor"),
        ({"rope_parameters": YARN | {"factor": "16"}}, "rope_parameters.factor"),
        ({"rope_parameters": YARN | {"beta_fast": -1}}, "rope_parameters.beta_fast"),
        ({"rope_parameters": YARN | {"truncate": 1}}, "rope_parameters.truncate"),
        ({"rope_parameters": YARN | {"attention_factor": 0}}, "rope_parameters.attention_factor"),
        ({"rope_parameters": YARN | {"mscale": -1, "mscale_all_dim": 1}}, "rope_parameters.mscale"),
        ({"rope_parameters": YARN | {"original_max_position_embeddings": 2**40}}, "original_max_position_embeddings"),
        ({"rope_parameters": YARN | {"partial_rotary_factor": 0.5}}, "rope_parameters.partial_rotary_factor"),
        ({"rope_parameters": YARN | {"something_new": 2}}, "rope_parameters.something_new"),
        ({"rope_parameters": YARN | {"llama_4_scaling_beta": 0.1}}, "rope_parameters.llama_4_scaling_beta"),
        ({"rope_parameters": YARN | {"apply_yarn_scaling": False}}, "apply_yarn_scaling"),
        ({"rope_parameters": YARN | {"rope_theta": 1.0}, "rope_theta": None}, "rope_theta is 1; YaRN"),
        ({"rope_parameters": YARN, "rope_scaling": YARN | {"factor": 8}}, "rope_parameters and rope_scaling disagree"),
        ({"rope_scaling": LLAMA3 | {"high_freq_factor": 1}}, "rope_scaling.high_freq_factor"),
        ({"rope_scaling": LLAMA3 | {"beta_fast": 1}}, "rope_scaling.beta_fast"),
        ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1]}}, "rope_scaling is of type 'longrope'"),
        ({"rope_scaling": 7}, "rope_scaling"),
        ({"rope_parameters": {"rope_theta": 5.0}}, "rope_theta"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"num_local_experts": 8}, "num_local_experts"),
        ({"some_new_attention_trick": "yes"}, "some_new_attention_trick"),
        ({"auto_map": {"AutoModel": "modeling.Evil"}}, "auto_map"),
        ({"model_file": "evil.py"}, "model_file"),
        ({"sliding_window": -1}, "sliding_window"),
        ({"sliding_window": 0}, "sliding_window"),
        ({"sliding_window": True}, "sliding_window"),
        ({"sliding_window": [8, 8, 8]}, "sliding_window"),
        ({"sliding_window": None, "layer_types": ["sliding_attention"] * 2}, "sliding_window"),
        ({"layer_types": ["chunked_attention"] * 2}, "layer_types"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"model_type": "llama", "sliding_window": 8}, "sliding_window"),
        ({"num_key_value_heads": 0}, "num_key_value_heads"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"hidden_size": -32}, "hidden_size"),
        ({"hidden_size": 10**12}, "hidden_size"),
        ({"hidden_size": 33}, "head_dim"),
        ({"head_dim": 7}, "head_dim"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"rms_norm_eps": 0}, "rms_norm_eps"),
        ({"rope_theta": 10**400}, "rope_theta"),
        ({"rope_theta": float("inf")}, "rope_theta"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"eos_token_id": -1}, "eos_token_id"),
        ({"text_config": [1]}, "text_config"),
        ({"quantization": {"group_size": 64, "bits": 7}}, "quantization"),
        ({"quantization": {"group_size": 64, "bits": 4, "mode": "mxfp4"}}, "group_size 32"),
        ({"quantization": {"group_size": 16, "bits": 8, "mode": "nvfp4"}}, "bits 4"),
        ({"quantization": {"mode": "nvfp4", "global_scale": True}}, "global_scale"),
        ({"quantization": {"mode": "fp4"}}, "mxfp8"),
        ({"quantization": {"mode": ["affine"]}}, "quantization"),
        ({"quantization": {"group_size": 64, "bits": 4.0}}, "quantization"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "quant_method"),
    ],
)
def test_what_is_unknown_and_matters_is_refused_by_its_key(changes, key):
    with pytest.raises(ConfigError, match=key):
        parse(**changes)


@pytest.mark.parametrize(
    ("mode", "expected"), [("affine", (4, 64)), ("mxfp4", (4, 32)), ("mxfp8", (8, 32)), ("nvfp4", (4, 16))]
)
def test_bits_and_group_size_default_to_those_of_the_mode(mode, expected):
    q = parse(quantization={"mode": "affine", "lm_head": {"mode": mode}}).quantization
    assert q.of("lm_head") == (*expected, mode) and q.usual == (4, 64, "affine")


@pytest.mark.parametrize("key", ["model_type", "hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size"])
def test_what_is_missing_is_named(key):
    with pytest.raises(ConfigError, match=key):
        without(key)


def test_neutral_and_unrelated_keys_are_harmless():
    args = parse(
        attention_bias=False,
        rope_scaling=None,
        attention_dropout=0.1,
        pretraining_tp=1,
        use_cache=True,
        _attn_implementation_autoset=True,
    )
    assert args == parse()


OF_EXPERTS = {f"experts.0.{letter}": f"{blocks.EXPERTS}.{module}" for letter, module in experts.NAMES.items()}


@pytest.mark.parametrize("names", [gguf_source.BLOCK_NAMES, native.BLOCK_MODULES | OF_EXPERTS])
def test_every_format_names_the_modules_of_a_block(names):
    both = {module.path for n_experts in (0, 8) for module in blocks.block(n_experts)}
    assert sorted(names.values()) == sorted(both)
