"""The families of models: those that have this graph, with their defaults, and those of Mistral's that have another."""

from mistral_mlx.errors import ConfigError, shown

from .packing import Config

# Families whose graph is this one. What a config leaves out takes the family's default in HF transformers 5.
FAMILY_DEFAULTS: dict[str, dict[str, object]] = {
    "mistral": {"max_position_embeddings": 131_072, "sliding_window": 4096, "num_key_value_heads": 8},
    "ministral": {"max_position_embeddings": 131_072, "sliding_window": 4096, "num_key_value_heads": 8},
    "llama": {"max_position_embeddings": 2048, "sliding_window": None},
    "ministral3": {
        "max_position_embeddings": 262_144,
        "sliding_window": None,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rms_norm_eps": 1e-5,
    },
    "mixtral": {
        "max_position_embeddings": 131_072,
        "sliding_window": None,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
}
THETAS = {"mixtral": 1_000_000.0}  # of rotary positions, where that is not transformers' usual 10,000
MINISTRAL3_ROPE = {  # where a config of that family has neither spelling
    "rope_type": "yarn",
    "rope_theta": 1_000_000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16_384,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}
QUERY_SCALES = ("ministral3",)  # families that scale queries by their position
MIXTURES = ("mixtral",)  # families whose feed-forward is a mixture of experts
CLASSES = {
    "mistral": "MistralForCausalLM",
    "ministral": "MinistralForCausalLM",
    "llama": "LlamaForCausalLM",
    "ministral3": "Ministral3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
}  # of transformers

LATENT = "keys and values from a latent vector, and experts"
STATE = "a state instead of keys and values"
AUDIO = "audio in its text model, which text alone does not run"
OTHER_GRAPHS = {
    "mistral4": f"Mistral Small 4 and Leanstral have {LATENT}",
    "deepseek_v3": f"Mistral Large 3 has {LATENT}",
    "mistral_large4": f"Mistral Large 4 has {LATENT}",
    "mistral_large4_text": f"Mistral Large 4 has {LATENT}",
    "mamba2": f"Codestral Mamba has {STATE}",
    "voxtral_realtime": f"Voxtral Realtime has {AUDIO}",
    "voxtral_realtime_text": f"Voxtral Realtime has {AUDIO}",
    "voxtral_tts": f"Voxtral TTS has {AUDIO}",
}


def family_of(config: Config, outer: Config) -> str:
    """Return the family that `config` names, the text model's part of `outer`. Raises ConfigError if it is no such."""
    for model_type in (outer.get("model_type"), config.get("model_type")):
        if isinstance(model_type, str) and model_type in OTHER_GRAPHS:
            raise ConfigError(
                f"config.json: model_type {shown(model_type)} is not supported: {OTHER_GRAPHS[model_type]}"
            )
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILY_DEFAULTS:
        known = ", ".join(FAMILY_DEFAULTS)
        raise ConfigError(f"config.json: model_type {shown(model_type)} is not supported; supported are {known}")
    return model_type
