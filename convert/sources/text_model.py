"""The text model of a Hugging Face checkpoint, as it is without a vision tower or an audio encoder beside it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from mistral_mlx.errors import shown
from mistral_mlx.files.safetensors import TensorEntry
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.families import CLASSES, MINISTRAL3_ROPE
from mistral_mlx.model.rope_config import SPELLINGS, TYPE_KEYS
from mistral_mlx.model.wrappers import parts_beside, text_names, text_part

OF_ALL = ("dtype", "torch_dtype", "bos_token_id", "pad_token_id")  # what a wrapper's config may say in its stead

Config = Mapping[str, object]


def text_entries(entries: Mapping[str, TensorEntry], notes: list[str]) -> dict[str, TensorEntry]:
    """Return the tensors of the text model under the names that they have where it stands alone.

    Raises CheckpointError if two of them become the same.
    """
    notes.extend(left_out(parts_beside(entries)))
    return {plain: replace(entries[name], name=plain) for plain, name in text_names(entries).items()}


def left_out(parts: Iterable[str]) -> Iterator[str]:
    """Yield the remark that `parts` of a checkpoint lie beside its text model, if there are any."""
    if names := sorted(set(parts)):
        are = "is" if len(names) == 1 else "are"
        yield f"{shown(' and '.join(names))} {are} left out: the text model is converted alone"


def text_config(config: Config) -> dict[str, object]:
    """Return the config.json of the text model alone, for one without quantization that may be a wrapper's.

    Raises ConfigError if it is not supported.
    """
    args, inner = ModelArgs.from_config(config), text_part(config)
    if inner is not config:
        ids = sorted(args.eos_token_ids)
        config = {
            "architectures": [CLASSES[args.model_type]],
            **{key: config[key] for key in OF_ALL if key in config},
            **inner,
            **({"eos_token_id": ids[0] if len(ids) == 1 else ids} if ids else {}),
        }
    return {**config, **rope_keys(config, args)}


def rope_keys(config: Config, args: ModelArgs) -> dict[str, object]:
    """Return the keys of rotary positions for transformers 5 and for mlx-lm, which read one of the spellings each.

    Plain positions in the spelling of transformers 4, which all read, need none.
    """
    given = next((dict(value) for key in SPELLINGS if isinstance(value := config.get(key), Mapping)), None)
    if args.model_type == "ministral3":
        given = {"llama_4_scaling_beta": 0.0} | given if given else dict(MINISTRAL3_ROPE)
    if given is None:
        return {}
    kind = next((given[key] for key in TYPE_KEYS if given.get(key)), "default")
    given |= {"rope_type": kind, "rope_theta": args.rope_theta}
    keys: dict[str, object] = {"rope_theta": args.rope_theta, "rope_parameters": given}
    return keys | ({"rope_scaling": given} if args.rope_scaling else {})
