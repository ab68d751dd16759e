"""The experts of a mixture as Hugging Face's files have them; the model holds a module of all experts in one tensor.

model.layers.L.block_sparse_moe.experts.E.w1.weight [I, D] (gate), w3 (up), w2 [D, I] (down)
model.layers.L.mlp.experts.gate_up_proj [E, 2I, D] (gate first), down_proj [E, D, I]    modules of transformers 5
"""

from collections.abc import Collection, Mapping

import mlx.core as mx

Shape = tuple[int, ...]
OWN_NAMES = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}  # Mistral's


def parts(name: str, shape: Shape, names: Collection[str]) -> dict[str, Shape]:
    """Return the tensors, and their shapes, that hold the model's tensor `name` in a file with these `names`."""
    block, found, module = name.partition(".block_sparse_moe.")
    if not found or name in names:
        return {name: shape}
    if module == "gate.weight":
        other = f"{block}.mlp.gate.weight"
        return {other if other in names else name: shape}
    leaf = module.split(".")[1]  # of switch_mlp.LEAF.weight
    n_experts, *matrix = shape
    apart = {f"{block}.block_sparse_moe.experts.{e}.{OWN_NAMES[leaf]}.weight": tuple(matrix) for e in range(n_experts)}
    if any(part in names for part in apart):
        return apart
    fused = f"{block}.mlp.experts.{'down_proj' if leaf == 'down_proj' else 'gate_up_proj'}"
    if fused not in names:
        return {name: shape}
    return {fused: shape if leaf == "down_proj" else (n_experts, 2 * matrix[0], matrix[1])}


def joined(weights: Mapping[str, mx.array], shapes: Mapping[str, Shape]) -> dict[str, mx.array]:
    """Return `weights` under the model's names, whose `shapes` are given: experts that lie apart are copied together.

    What a file already has as the model holds it stays as it is, mapped or not.
    """
    found, used = dict(weights), set[str]()
    for name, shape in shapes.items():
        names = list(parts(name, shape, weights.keys()))
        if names == [name]:
            continue
        arrays = [weights[part] for part in names]
        whole = arrays[0] if len(arrays) == 1 else mx.stack(arrays)
        if whole.shape != shape:  # gate and up together
            whole = whole[:, : shape[1]] if ".gate_proj." in name else whole[:, shape[1] :]
        found[name] = mx.contiguous(whole)
        mx.eval(found[name])
        used.update(names)
    return {name: array for name, array in found.items() if name not in used}
