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
        x = x + (mixture(args, w, p + "block_sparse_moe.", h) if args.n_experts else swiglu(w, p + "mlp.", h))
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return norm(x, w["model.norm.weight"], args.norm_eps) @ head.T


def attend(args, w, prefix, x, layer):
    """Return the attention output ``[S, D]`` of one layer, head by head."""
    q, k, v = (x @ w[prefix + name + "_proj.weight"].T for name in "qkv")
    heads = []
    for h in range(args.n_heads):
        kv = h // (args.n_heads // args.n_kv_heads)
        turned = rotate(head(q, h, args), args) * query_scale(len(x), args)[:, None]
        scores = turned @ rotate(head(k, kv, args), args).T / np.sqrt(args.head_dim)
        scores[~visible(len(x), args.sliding_window[layer], sinks_of(args, layer))] = -np.inf
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        heads.append(p / p.sum(axis=1, keepdims=True) @ head(v, kv, args))
    return np.concatenate(heads, axis=1) @ w[prefix + "o_proj.weight"].T


def swiglu(w, prefix, x, which=...):
    """Return the feed-forward of ``[S, D]``; of stacked ones, the one called `which`."""
    gate, up, down = (w[f"{prefix}{name}_proj.weight"][which] for name in ("gate", "up", "down"))
    raised = x @ gate.T
    return (raised / (1 + np.exp(-raised)) * (x @ up.T)) @ down.T


def mixture(args, w, prefix, x):
    """Jiang et al., 2024, section 2.1, token by token: experts share a softmax over the largest logits."""
    rows = []
    for token in x:
        logits = w[prefix + "gate.weight"] @ token
        chosen = sorted(range(args.n_experts), key=lambda e: -logits[e])[: args.n_experts_per_token]
        p = np.exp(logits[chosen] - logits[chosen].max())
        outputs = [swiglu(w, prefix + "switch_mlp.", token[None], e)[0] for e in chosen]
        rows.append(p / p.sum() @ outputs)
    return np.array(rows)


def visible(n, window, sinks=0):
    """Return ``[S, S]``: whether query i sees key j, which it does iff ``0 <= i - j < W``, or iff ``j <= i, j < K``."""
    distance = np.arange(n)[:, None] - np.arange(n)[None, :]
    near = distance < (n if window is None else window)
    return (distance >= 0) & (near | (np.arange(n) < sinks))


def sinks_of(args, layer):
    """Only a window that was chosen has sinks."""
    return args.sinks if args.config_windows and args.sliding_window[layer] != args.config_windows[layer] else 0


def head(x, index, args):
    return x[:, index * args.head_dim : (index + 1) * args.head_dim]


def rotate(x, args):
    """Rotate dimensions (i, i + Dh/2) of row p by p times the pair's frequency; YaRN makes them longer, too."""
    half = args.head_dim // 2
    frequency = {"NoneType": plain, "Yarn": yarn, "Llama3": llama3}[type(args.rope_scaling).__name__]
    angles = np.arange(len(x))[:, None] * np.array([frequency(i, args) for i in range(half)])
    length = getattr(args.rope_scaling, "attention_factor", 1.0)
    cos, sin = length * np.cos(angles), length * np.sin(angles)
    a, b = x[:, :half], x[:, half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=1)


def plain(pair, args):
    return args.rope_theta ** (-2.0 * pair / args.head_dim)


def yarn(pair, args):
    """Peng et al., 2023, section 3.2; the ramp runs over the numbers of pairs, as in every program."""
    y = args.rope_scaling

    def of(turns):  # the pair whose wave fits so often into the original context
        return args.head_dim * np.log(y.original / (turns * 2 * np.pi)) / (2 * np.log(args.rope_theta))

    low, high = of(y.beta_fast), of(y.beta_slow)
    if y.truncate:
        low, high = np.floor(low), np.ceil(high)
    low, high = max(low, 0), min(high, args.head_dim - 1)
    if low == high:
        high += 0.001
    ramp = min(max((pair - low) / (high - low), 0), 1)
    return plain(pair, args) / y.factor * ramp + plain(pair, args) * (1 - ramp)


def llama3(pair, args):
    """Llama 3.1: by wave lengths."""
    y, frequency = args.rope_scaling, plain(pair, args)
    wave = 2 * np.pi / frequency
    if wave < y.original / y.high:
        return frequency
    if wave > y.original / y.low:
        return frequency / y.factor
    smooth = (y.original / wave - y.low) / (y.high - y.low)
    return (1 - smooth) * frequency / y.factor + smooth * frequency


def query_scale(n, args):
    """Return ``1 + beta * ln(1 + floor(p / original))`` for n positions."""
    if args.query_scale is None:
        return np.ones(n)
    return 1 + args.query_scale.beta * np.log(1 + np.floor(np.arange(n) / args.query_scale.original))


def norm(x, weight, eps):
    return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + eps) * weight
