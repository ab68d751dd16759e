"""AWQ and GPTQ checkpoints, packed as AutoAWQ and AutoGPTQ pack."""

import json
from pathlib import Path

import numpy as np
from helpers.convert_sources import CONFIG, random_weights, write_safetensors

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "GEMM"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 64, "sym": False, "desc_act": False}


def pack_rows(codes: np.ndarray, bits: int, order: list[int]) -> np.ndarray:
    """Return words of eight neighbouring codes of a row, in `order`: [n, m] -> [n, m / 8]."""
    words = np.zeros((len(codes), codes.shape[1] * bits // 32), np.uint32)
    for i, place in enumerate(order):
        words |= codes[:, place :: len(order)].astype(np.uint32) << np.uint32(bits * i)
    return words.view(np.int32)


def size_of(rule: dict[str, object]) -> tuple[int, int]:
    return int(rule.get("bits", rule.get("w_bit"))), int(rule.get("group_size", rule.get("q_group_size")))


def packed_tensor(weight: np.ndarray, rule: dict[str, object], order: np.ndarray | None) -> dict[str, np.ndarray]:
    """Quantize [out, in] by group; return the stored parts, and the weights as "plain"."""
    bits, size = size_of(rule)
    weight = np.concatenate([np.abs(weight[:1]), weight[1:]])  # a row whose zero is 0
    n_in = weight.shape[1]
    size = n_in if size == -1 else size
    index = np.arange(n_in) // size if order is None else order
    top = 2**bits - 1
    groups = [weight[:, index == g] for g in range(n_in // size)]
    low = np.array([g.min(axis=1) for g in groups]).clip(max=0)  # [groups, out]
    high = np.array([g.max(axis=1) for g in groups]).clip(min=0)
    scales = np.maximum((high - low) / top, 1e-5).astype(np.float16)
    zeros = np.full_like(low, 2 ** (bits - 1)) if rule.get("sym") else np.round(-low / scales).clip(0, top)
    codes = np.round(weight.T / scales[index].astype(np.float32) + zeros[index]).clip(0, top)  # [in, out]
    plain = ((codes - zeros[index]) * scales[index].astype(np.float64)).T.astype(np.float32)
    straight = list(range(32 // bits))
    if rule["quant_method"] == "awq":
        swapped = [0, 2, 4, 6, 1, 3, 5, 7]
        return {"qweight": pack_rows(codes, 4, swapped), "qzeros": pack_rows(zeros, 4, swapped), "scales": scales,
                "plain": plain}  # fmt: skip
    less = 0 if rule.get("checkpoint_format") == "gptq_v2" else 1
    return {
        "qweight": np.ascontiguousarray(pack_rows(codes.T, bits, straight).T),
        "qzeros": pack_rows((zeros.astype(int) - less) & top, bits, straight),
        "scales": scales,
        "g_idx": index.astype(np.int32),
        "plain": plain,
    }


def packed_folder(path: Path, rule: dict[str, object], **changes: np.ndarray | None) -> dict[str, np.ndarray]:
    """Write a folder in which all projections except one are packed; return {name: weight}."""
    tensors, plain = {}, {}
    orders = np.random.default_rng(5)
    for name, weight in random_weights(CONFIG).items():
        if "proj" not in name or name == "model.layers.1.mlp.down_proj.weight":  # one of modules_to_not_convert
            tensors[name] = weight.astype(np.float16)
            plain[name] = tensors[name].astype(np.float32)
            continue
        order = None
        if rule.get("desc_act"):
            order = orders.permutation(np.arange(weight.shape[1]) // int(rule["group_size"]))
        parts = packed_tensor(weight, rule, order)
        plain[name] = parts.pop("plain")
        tensors |= {f"{name.removesuffix('.weight')}.{part}": array for part, array in parts.items()}
    for name, array in changes.items():
        tensors[name.replace("__", ".")] = array
    path.mkdir()
    (path / "config.json").write_text(json.dumps({**CONFIG, "torch_dtype": "float16", "quantization_config": rule}))
    write_safetensors(path / "model.safetensors", {n: a for n, a in tensors.items() if a is not None}, {})
    return plain
