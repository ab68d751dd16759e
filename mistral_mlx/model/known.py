"""Published copies of models that are not what their publisher means: known by their shapes, and said when loaded."""

from collections.abc import Iterator

from .args import ModelArgs
from .rope import Yarn

MEDIUM_3_5 = (88, 12_288, 64)  # layers, dim and YaRN's factor, which Devstral 2 shares
MINISTRAL_8B = (36, 4096, 12_288)  # layers, dim and width of the feed-forward
MINISTRAL_8B_WINDOW = 32_768


def remarks(args: ModelArgs) -> Iterator[str]:
    """Yield a sentence for each way in which a copy of a known model is another one."""
    if _is_short_medium(args):
        yield (
            "this copy of Mistral Medium 3.5 (or Devstral 2) computes another model, as copies from before 1 May 2026 "
            "do: its attention factor is 1. config.json must have mscale_all_dim 0, params.json apply_scale true"
        )
    if _is_windowed_ministral(args):
        yield (
            f"Ministral 8B with one window for all layers is exact up to {MINISTRAL_8B_WINDOW:,} tokens only; for "
            "longer texts convert Mistral's own files (params.json), which give each layer its window"
        )
    if args.model_type == "mixtral" and any(w is not None for w in args.sliding_window):
        yield (
            "Mixtral has no sliding window, but this copy's config.json has one: behind it answers become much worse. "
            "Set sliding_window to null in that file"
        )


def _is_short_medium(args: ModelArgs) -> bool:
    yarn = args.rope_scaling
    if not isinstance(yarn, Yarn) or (args.n_layers, args.dim, yarn.factor) != MEDIUM_3_5:
        return False
    return yarn.attention_factor == 1


def _is_windowed_ministral(args: ModelArgs) -> bool:
    is_ministral = (args.n_layers, args.dim, args.hidden_dim) == MINISTRAL_8B
    return is_ministral and set(args.sliding_window) == {MINISTRAL_8B_WINDOW}
