"""The reference: Mistral's forward pass in NumPy float64, full attention, no cache.

Written from the formulas and sharing no code with the engine, so that a mistake in one is not repeated in the other.
"""

import numpy as np


def forward(args, weights, ids):
    """Return float64 logits ``[S, V]`` for token ids ``[S]``; `weights` maps HF names to arrays."""
    w = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    x = w["model.embed_tokens.weight"][np.asarray(ids)]
    for layer in range(args.n_layers):
        p = f"model.layers.{layer}."
        x = x + attend(args, w, p + "self_attn.", norm(x, w[p + "input_layernorm.weight"], args.norm_eps), layer)
        h = norm(x, w[p + "post_attention_layernorm.weight"], args.norm_eps)
        gate, up = h @ w[p + "mlp.gate_proj.weight"].T, h @ w[p + "mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[p + "mlp.down_proj.weight"].T
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return norm(x, w["model.norm.weight"], args.norm_eps) @ head.T


def attend(args, w, prefix, x, layer):
    """Return the attention output ``[S, D]`` of one layer, head by head."""
    q, k, v = (x @ w[prefix + name + "_proj.weight"].T for name in "qkv")
    heads = []
    for h in range(args.n_heads):
        kv = h // (args.n_heads // args.n_kv_heads)
        scores = rotate(head(q, h, args), args) @ rotate(head(k, kv, args), args).T / np.sqrt(args.head_dim)
        scores[~visible(len(x), args.sliding_window[layer])] = -np.inf
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        heads.append(p / p.sum(axis=1, keepdims=True) @ head(v, kv, args))
    return np.concatenate(heads, axis=1) @ w[prefix + "o_proj.weight"].T


def visible(n, window):
    """Return ``[S, S]``: whether query i sees key j, which it does iff ``0 <= i - j < W``."""
    distance = np.arange(n)[:, None] - np.arange(n)[None, :]
    return (distance >= 0) & (distance < (n if window is None else window))


def head(x, index, args):
    return x[:, index * args.head_dim : (index + 1) * args.head_dim]


def rotate(x, args):
    """Rotate dimensions (i, i + Dh/2) of row p by the angle ``p * theta ** (-2i / Dh)``."""
    half = args.head_dim // 2
    angles = np.arange(len(x))[:, None] * args.rope_theta ** (-2.0 * np.arange(half) / args.head_dim)
    a, b = x[:, :half], x[:, half:]
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], axis=1)


def norm(x, weight, eps):
    return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + eps) * weight
