"""What each of several processes gets of a model, told without starting any."""

import json

import mlx.core as mx
import numpy as np
import pytest
from helpers.models import tiny_config
from helpers.shared_models import EXPERTS, SIZES, write_model, write_shared
from mlx.utils import tree_flatten

from mistral_mlx.distributed.agree import Wanted, digest, split
from mistral_mlx.distributed.loading import load_share, nbytes_of, share_nbytes
from mistral_mlx.distributed.share import shares_of_blocks, shares_of_layers
from mistral_mlx.errors import ModelError, OptionError
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.loading import inspect_model, load_model

pytestmark = pytest.mark.cpu


def args_of(**changes):
    return ModelArgs.from_config(tiny_config(**changes))


def inspected(folder):
    return inspect_model(ModelFolder(folder))


def layers_of(memory, nbytes, n_more=0):
    shares = shares_of_layers(args_of(num_hidden_layers=len(nbytes)), memory, nbytes, n_more)
    assert [i for share in shares for i in share.layers] == list(range(len(nbytes)))
    return [len(share.layers) for share in shares]


@pytest.mark.parametrize(
    ("memory", "n_layers", "expected"),
    [
        ([1, 1], 8, [4, 4]),
        ([1, 1, 1], 8, [3, 2, 3]),
        ([30, 10], 8, [6, 2]),
        ([10, 30], 8, [2, 6]),
        ([1, 10**12], 8, [1, 7]),
        ([10**12, 1], 8, [7, 1]),
        ([10**12, 0, 0], 8, [6, 1, 1]),
        ([0, 0, 10**12], 8, [1, 1, 6]),
        ([0, 10**12, 0], 8, [1, 6, 1]),
        ([0, 0], 8, [4, 4]),
        ([0, 5, 10**12, 3], 4, [1, 1, 1, 1]),
        ([10**12, 5, 0, 3], 4, [1, 1, 1, 1]),
    ],
)
def test_layers_go_where_the_memory_is_and_one_goes_everywhere(memory, n_layers, expected):
    assert layers_of(memory, [100] * n_layers) == expected


def test_layers_of_different_sizes_count_as_their_bytes():
    assert layers_of([1000, 1000], [50, 50, 50, 50, 200]) == [4, 1]
    assert layers_of([1000, 1000], [200, 50, 50, 50, 50]) == [1, 4]


def test_rank_0_has_the_embedding_and_the_head_beside_its_layers():
    assert layers_of([1000, 1000], [100] * 10, n_more=0) == [5, 5]
    assert layers_of([1000, 1000], [100] * 10, n_more=600) == [3, 7]
    assert layers_of([1000, 1000], [100] * 10, n_more=5000) == [1, 9]


def test_fewer_layers_than_processes_are_refused():
    with pytest.raises(OptionError, match="the 2 layers of this model cannot be split over 3 processes; take fewer"):
        layers_of([1, 1, 1], [5, 5])


@pytest.mark.parametrize(("n_heads", "size"), [(4, 3), (4, 8), (3, 2), (1, 2)])
def test_key_heads_that_cannot_be_divided_are_refused(n_heads, size):
    args = args_of(num_key_value_heads=n_heads, num_attention_heads=n_heads * 2, head_dim=8)
    with pytest.raises(OptionError, match=rf"the {n_heads} key heads .* over {size} processes; take --pipeline"):
        shares_of_blocks(args, size, {})


def test_groups_of_inputs_stay_whole(tmp_path):
    args = args_of(**SIZES)
    with pytest.raises(OptionError, match=r"64 inputs of o_proj for each of 4 processes are no whole .* --pipeline"):
        shares_of_blocks(args, 4, {"self_attn.o_proj": 128})
    with pytest.raises(
        OptionError, match=r"the 320 hidden units .*, in groups of 128, .* over 2 processes; .* --pipeline"
    ):
        shares_of_blocks(args, 2, {"mlp.down_proj": 128})
    with pytest.raises(OptionError, match=r"the 320 hidden units .*, in groups of 160, .* over 4 processes"):
        shares_of_blocks(args, 4, {"mlp.down_proj": 160})
    shares = shares_of_blocks(args, 4, {"self_attn.o_proj": 64, "mlp.down_proj": 64})
    assert [share.hidden for share in shares] == [(0, 64), (64, 128), (128, 192), (192, 320)]


def test_the_largest_group_of_any_layer_counts(tmp_path):
    rules = {"group_size": 32, "bits": 4, "model.layers.1.mlp.down_proj": {"group_size": 128, "bits": 4}}
    model = inspected(write_shared(tmp_path / "model", quantization=rules, intermediate_size=384))
    assert [share.hidden for share in split(model, 2, Wanted(), [1, 1])] == [(0, 128), (128, 384)]
    with pytest.raises(OptionError, match="in groups of 128"):
        split(model, 4, Wanted(), [1] * 4)


@pytest.mark.parametrize("name", ["float32", "mixed bits", "8 bits, tied", "experts apart", "experts in 4 bits"])
@pytest.mark.parametrize("size", [2, 4])
def test_the_shares_of_blocks_are_the_model(tmp_path, name, size):
    """Each element of a matrix is in one share, a norm and a router in all, the embedding in that of rank 0."""
    folder = write_model(tmp_path / "model", name)
    model, whole = inspected(folder), dict(tree_flatten(load_model(folder).parameters()))
    shares = split(model, size, Wanted(), [1] * size)
    parts = [dict(tree_flatten(load_share(model, share).parameters())) for share in shares]
    for path, array in whole.items():
        own = [np.array(part[path].view(mx.uint8)) for part in parts if path in part]
        array = np.array(array.view(mx.uint8))
        if "layers" not in path:
            assert [path in part for part in parts] == [True] + [False] * (size - 1)
        else:
            assert len(own) == size
        if all(part.shape == array.shape for part in own):
            assert all((part == array).all() for part in own), path
            continue
        axis = next(axis for axis in range(array.ndim) if own[0].shape[axis] != array.shape[axis])
        np.testing.assert_array_equal(np.concatenate(own, axis=axis), array, err_msg=path)


@pytest.mark.parametrize("name", ["float32", "mixed bits", "experts in 4 bits"])
@pytest.mark.parametrize("pipeline", [False, True])
def test_the_bytes_of_a_share_are_known_before_it_is_loaded(tmp_path, name, pipeline):
    model = inspected(write_model(tmp_path / "model", name))
    for share in split(model, 2, Wanted(pipeline), [1 << 30, 1 << 30]):
        found = sum(array.nbytes for _, array in tree_flatten(load_share(model, share).parameters()))
        assert share_nbytes(model, share) == pytest.approx(found, rel=0.15)  # norms, and 5 groups of hidden units
    of_layers, outside = nbytes_of(model)
    assert sum(of_layers) + outside == sum(entry.nbytes for entry in model.entries.values())


def test_gate_and_up_in_one_tensor_are_refused_by_name(tmp_path):
    model = inspected(write_model(tmp_path / "model", "experts fused"))
    for share in split(model, 2, Wanted(), [1, 1]):
        with pytest.raises(ModelError, match=r"gate and up of the experts .* mistral-mlx convert"):
            load_share(model, share)
    for share in split(model, 2, Wanted(pipeline=True), [1, 1]):
        load_share(model, share)


def test_options_of_the_cache_reach_the_shares(tmp_path):
    model = inspected(write_shared(tmp_path / "model", sliding_window=[None, 8, None]))
    own = [share.args for share in split(model, 2, Wanted(True, window=20, sinks=4, kv_bits=8), [10, 20])]
    assert [args.sliding_window for args in own] == [(20,), (8, 20)]
    assert [args.trained_windows for args in own] == [(None,), (8, None)]
    assert {(args.sinks, args.kv_bits) for args in own} == {(4, 8)}
    with pytest.raises(OptionError, match="sinks"):
        split(model, 2, Wanted(sinks=4), [1, 1])


def test_what_config_json_says_of_modules_that_do_not_exist_is_no_matter(tmp_path):
    """A module's name in config.json can be any text."""
    folder = write_shared(tmp_path / "model", quantization={"group_size": 32, "bits": 4})
    config = json.loads((folder / "config.json").read_text())
    rule = {"group_size": 64, "bits": 8}
    config["quantization"] |= dict.fromkeys(
        ["model.layers.x.mlp", "model.layers", "model.layers.²", "model.layers.99.mlp.up_proj", "model.layers.-1.a"],
        rule,
    )
    (folder / "config.json").write_text(json.dumps(config))
    model = inspected(folder)
    for pipeline in (False, True):
        for share in split(model, 2, Wanted(pipeline), [1, 1]):
            load_share(model, share)


def test_models_that_differ_have_another_digest(tmp_path):
    changes = [{}, {"rope_theta": 5e3}, {"dtype": mx.float16}, {"num_key_value_heads": 8}, {"seed": 1}, EXPERTS]
    found = {digest(inspected(write_shared(tmp_path / str(i), **change))) for i, change in enumerate(changes)}
    assert len(found) == len(changes)
    assert digest(inspected(write_shared(tmp_path / "again"))) in found
