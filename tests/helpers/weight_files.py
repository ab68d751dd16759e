"""Changes the weights and the index of a model folder."""

import json

import mlx.core as mx


def rewrite(folder, **changes):
    """Save the weights again with some of them replaced, or left out if None."""
    weights = {**mx.load(str(folder / "model.safetensors")), **changes}
    mx.eval([w for w in weights.values() if w is not None])
    mx.save_safetensors(str(folder / "model.safetensors"), {k: v for k, v in weights.items() if v is not None})


def shard(folder, places):
    """Split the weights over files by `places(name)`, with an index."""
    weights = mx.load(str(folder / "model.safetensors"))
    mx.eval(list(weights.values()))
    (folder / "model.safetensors").unlink()
    files = {}
    for name, weight in weights.items():
        files.setdefault(places(name), {})[name] = weight
    for file, part in files.items():
        mx.save_safetensors(str(folder / file), part)
    index = {"weight_map": {name: places(name) for name in weights}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def two_shards(name):
    return f"model-0000{1 + ('layers.1' in name)}-of-00002.safetensors"
