"""Tiny models that transformers and this program must agree on: configs, weights from a seed, ids and positions."""

import numpy as np

N_IDS = 150
# Around a window of 8, an original context of 16 and its multiples, a ring of 128 slots and its wrap.
POSITIONS = [0, 1, 2, 6, 7, 8, 9, 14, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 135, 136, 137, 148, 149]
SIZES = {
    "vocab_size": 24,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "sliding_window": None,
    "tie_word_embeddings": False,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 16.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
MINISTRAL3 = SIZES | {
    "model_type": "ministral3",
    "rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1},
}
DEVSTRAL2 = YARN | {
    "rope_theta": 100.0,  # so that in 64 positions a pair turns more than 4 times
    "original_max_position_embeddings": 64,
    "beta_fast": 4.0,
    "mscale": 1.0,
    "mscale_all_dim": 0.0,
    "llama_4_scaling_beta": 0.0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
OLD_YARN = {"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "finetuned": True}
LLAMA = {key: value for key, value in SIZES.items() if key != "sliding_window"} | {"model_type": "llama"}
MIXTRAL = SIZES | {"model_type": "mixtral", "rope_theta": 1e6, "num_local_experts": 4, "num_experts_per_tok": 2}
CONFIGS: dict[str, dict[str, object]] = {
    "ministral3": MINISTRAL3,
    "ministral3, tied": MINISTRAL3 | {"tie_word_embeddings": True},
    "ministral3, window": MINISTRAL3 | {"sliding_window": 8},
    "ministral3, as Devstral 2": MINISTRAL3 | {"rope_parameters": DEVSTRAL2},
    "mistral, yarn, window": SIZES
    | {"model_type": "mistral", "sliding_window": 8, "rope_theta": 1e4, "rope_scaling": OLD_YARN},
    "llama, llama3": LLAMA | {"rope_theta": 5e5, "rope_scaling": LLAMA3},
    "llama, llama3, tied": LLAMA | {"rope_parameters": LLAMA3 | {"rope_theta": 1e4}, "tie_word_embeddings": True},
    "mixtral": MIXTRAL,
    "mixtral, window, three of five": MIXTRAL | {"sliding_window": 8, "num_local_experts": 5, "num_experts_per_tok": 3},
}
WRAPPED = ("mistral3", "ministral3")  # a text model in a wrapper, and the case above that it is


def random_ids() -> np.ndarray:
    """Return the ids of every case."""
    return np.random.default_rng(1).integers(0, 24, N_IDS)


def random_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return weights by name, large enough that attention and positions matter, in the order of the names."""
    rng, weights = np.random.default_rng(0), {}
    for name in sorted(shapes):
        is_norm = len(shapes[name]) == 1
        scale = 0.3 if is_norm else 2.0 / np.sqrt(shapes[name][-1])
        weights[name] = (rng.normal(size=shapes[name]) * scale + is_norm).astype(np.float32)
    return weights
