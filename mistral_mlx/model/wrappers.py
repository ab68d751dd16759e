"""Checkpoints in which a text model lies beside a vision tower or an audio encoder: names and config of the text model.

A prompt of text never reaches what lies beside it, so that the text model alone is exact.
"""

from collections.abc import Iterable, Mapping

from mistral_mlx.errors import CheckpointError, ConfigError, shown

Config = Mapping[str, object]

# What the names of the text model begin with, in files of transformers 4 and of 5, and what becomes of it.
PREFIXES = {"language_model.": "", "model.language_model.": "model."}
BESIDE = ("vision_tower", "multi_modal_projector", "audio_tower")  # also after "model."

# The family of a text model whose config does not say it, by the wrapper's; as in transformers 5.
TEXT_FAMILIES = {"mistral3": "mistral", "llava": "llama", "voxtral": "llama"}
VOXTRAL_TEXT: Config = {  # what transformers fills in where a text_config of that wrapper says nothing
    "vocab_size": 131_072,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 30,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100_000_000.0,
    "head_dim": 128,
}


def text_part(config: Config) -> Config:
    """Return the config of the text model in a wrapper's, or the config itself."""
    inner = config.get("text_config")
    if inner is None:
        return config
    if not isinstance(inner, Mapping):
        raise ConfigError(f"config.json: text_config must be an object, not {shown(inner)}")
    wrapper = config.get("model_type")
    if isinstance(wrapper, str) and inner.get("model_type") is None and wrapper in TEXT_FAMILIES:
        inner = {**inner, "model_type": TEXT_FAMILIES[wrapper]}
    if wrapper == "voxtral":
        rope = inner.get("rope_parameters")
        says_theta = isinstance(rope, Mapping) and rope.get("rope_theta") is not None
        inner = {**VOXTRAL_TEXT, **({"rope_theta": None} if says_theta else {}), **inner}
    return inner


def text_name(name: str) -> str | None:
    """Return the name that a tensor or module has where the text model stands alone; None if it is beside it."""
    for prefix, alone in PREFIXES.items():
        if name.startswith(prefix):
            return alone + name.removeprefix(prefix)
    return None if beside(name) else name


def beside(name: str) -> str | None:
    """Return what lies beside the text model and holds the tensor `name`; None if nothing does."""
    part = name.removeprefix("model.").partition(".")[0]
    return part if part in BESIDE else None


def parts_beside(names: Iterable[str]) -> list[str]:
    """Return what lies beside the text model and holds tensors (or modules) of these names, in order."""
    return sorted({part for name in names if (part := beside(name)) is not None})


def text_names(names: Iterable[str], owner: str = "checkpoint") -> dict[str, str]:
    """Return the names that a text model's tensors have where it stands alone, and those that they have in the files.

    Raises CheckpointError if two of them become the same; `owner` is what has the files.
    """
    named: dict[str, str] = {}
    for name in names:
        plain = text_name(name)
        if plain in named:
            raise CheckpointError(
                f"the {owner} has tensor {shown(plain)} twice, as {shown(named[plain])} and {shown(name)}"
            )
        if plain is not None:
            named[plain] = name
    return named
