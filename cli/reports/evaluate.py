"""``eval``: how well a model predicts a text, as lines for people or as one JSON object on stdout."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from mistral_mlx import kernels
from mistral_mlx.cli.models.opening import open_model
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.signals import Interrupted
from mistral_mlx.cli.terminal.streams import write_text
from mistral_mlx.cli.terminal.table import facts, print_json, rounded
from mistral_mlx.errors import ContextError, ModelError, OptionError, counted
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.measure.evaluation import Scoring, Window, model_logits, windows
from mistral_mlx.measure.scores import Bucket, Comparison, Evaluation, Mean
from mistral_mlx.model.cache_options import DEFAULT, CacheOptions
from mistral_mlx.model.loading import read_args
from mistral_mlx.tokenizer.choose import Tokenizer

DIGITS = 9  # of a figure in JSON: two models may differ by little
REFRESH_S = 0.5  # between two estimates on the bar
SHOWN_PERCENTILES = {"10": "10%", "50": "median", "90": "90%", "99": "99%", "99.9": "99.9%"}
N_SHOWN_BUCKETS = 4


@dataclass(frozen=True)
class Protocol:
    """The text, and how it is cut."""

    text: str
    context: int
    stride: int | None = None
    chunks: int | None = None

    def windows(self, tokenizer: Tokenizer) -> list[Window]:
        """Return the windows, with the first id that a model of this tokenizer wants.

        Raises OptionError if the text does not fill one.
        """
        ids = tokenizer.encode(self.text, bos=tokenizer.add_bos)
        bos_id = tokenizer.bos_id if tokenizer.add_bos else None
        return windows(ids, context=self.context, stride=self.stride, bos_id=bos_id, limit=self.chunks)

    def check(self, path: Path) -> None:
        """Raise OptionError if no window is wanted, ContextError if the model at `path` cannot take one."""
        if self.chunks is not None and self.chunks < 1:
            raise OptionError(f"--chunks is {self.chunks}; it must be at least 1")
        limit = read_args(ModelFolder(path)).context_limit
        if limit is not None and self.context > limit:
            raise ContextError(
                f"--context is {self.context:,}, and the model's context {limit:,}", "take a smaller one"
            )


def run(
    path: Path, reference: Path | None, protocol: Protocol, cache: CacheOptions, notes: Notes, *, ignore_memory: bool
) -> Evaluation:
    """Return what the text says about the model at `path` with such a cache, and how that differs from the reference.

    Raises ContextError if a window is too long, ModelError if the two do not share a vocabulary.
    """
    protocol.check(path)
    model, tokenizer = open_model(path, notes, protocol.context, cache=cache, ignore_memory=ignore_memory)
    cut = protocol.windows(tokenizer)
    against = None
    if reference is not None:
        protocol.check(reference)
        other, its_tokenizer = open_model(reference, notes, protocol.context, ignore_memory=ignore_memory)
        n, its_n = model.args.vocab_size, other.args.vocab_size
        if n != its_n:
            raise ModelError(f"the models have {n:,} and {its_n:,} tokens; --against takes one of the same vocabulary")
        if cut != protocol.windows(its_tokenizer):
            raise ModelError("the text is other tokens to the reference; --against takes one of the same vocabulary")
        against = model_logits(other)
    scoring = Scoring(model_logits(model), against)
    with _watched(scoring, len(cut), notes) as show_bar:
        for window in cut:
            scoring.add(window)
            show_bar()
    return scoring.result()


def show(
    name: str, against: str | None, protocol: Protocol, cache: CacheOptions, result: Evaluation, *, as_json: bool
) -> None:
    """Write the figures to stdout, as JSON or as lines."""
    if as_json:
        asked = {"context": protocol.context, "stride": protocol.stride, "chunks": protocol.chunks}
        asked |= asdict(cache)
        machine = {"kernels": kernels.names(), "threads": kernels.threads(), "exact": kernels.exact()}
        figures = rounded(_flat(asdict(result)), DIGITS)
        record = {"model": name, "against": against, **figures, **asked, **machine}
        print_json(record)
        return
    rows = [("model", name), *_rows(protocol, result), ("arithmetic", "exact" if kernels.exact() else "as in answers")]
    if cache != DEFAULT:
        rows.append(("cache", str(cache)))
    if against is not None and result.comparison is not None:
        rows += [("", ""), ("against", against), *_comparison_rows(result.comparison)]
    rows += [("", ""), *_curve_rows(result.curve)]
    write_text(facts(rows))


def _flat(record: dict[str, object]) -> dict[str, object]:
    """Return the record with the error of each mean beside it."""
    flat: dict[str, object] = {}
    for name, value in record.items():
        if isinstance(value, Mean):
            flat |= {name: value.value, f"{name}_error": value.error}
        elif name == "comparison" and isinstance(value, dict):
            flat[name] = _flat(value)
        else:
            flat[name] = [bucket._asdict() for bucket in value] if isinstance(value, tuple) else value
    return flat


def _rows(protocol: Protocol, result: Evaluation) -> Iterator[tuple[str, str]]:
    yield "perplexity", _shown(result.perplexity, 4)
    yield "nll", f"{_shown(result.nll, 5)} per token"
    scored = "the second half of each" if protocol.stride is None else f"the last {protocol.stride:,} of each"
    windows = f"{counted(result.n_windows, 'window')} of {protocol.context:,}"
    yield "tokens", f"{result.n_tokens:,} scored in {windows}, {scored}"


def _comparison_rows(c: Comparison) -> Iterator[tuple[str, str]]:
    yield "perplexity", f"{_shown(c.reference_perplexity, 4)}, ratio {_shown(c.perplexity_ratio, 5)}"
    yield "KL", f"{_shown(c.kl, 6)} on average, {c.kl_max:.6f} at most"
    yield "", ", ".join(f"{title} {c.kl_percentiles[key]:.6f}" for key, title in SHOWN_PERCENTILES.items())
    yield "same top", _shown(c.same_top, 3, percent=True)
    yield "delta p", f"{_shown(c.rms_delta_p, 3, percent=True)} RMS, {_shown(c.mean_delta_p, 3, percent=True)} mean"


def _curve_rows(curve: tuple[Bucket, ...]) -> Iterator[tuple[str, str]]:
    """Yield the curve in few places; --json has all."""
    size = -(-len(curve) // N_SHOWN_BUCKETS)
    for i in range(0, len(curve), size):
        part = curve[i : i + size]
        n = sum(b.n_tokens for b in part)
        text = f"nll {sum(b.nll * b.n_tokens for b in part) / n:.4f}"
        if all(b.kl is not None for b in part):
            text += f", KL {sum((b.kl or 0) * b.n_tokens for b in part) / n:.6f}"
        yield "positions" if i == 0 else "", f"{part[0].first:,} to {part[-1].last:,}: {text}"


def _shown(mean: Mean, digits: int, *, percent: bool = False) -> str:
    value, error = (100 * x if percent else x for x in mean)
    return f"{value:.{digits}f} ± {error:.{digits}f}" + (" %" if percent else "")


@contextmanager
def _watched(scoring: Scoring, n_windows: int, notes: Notes) -> Iterator[Callable[[], None]]:
    """Give a function that updates a bar on a terminal; after an interrupt, print the perplexity so far."""
    shown_at, text = 0.0, ""

    def show() -> None:
        nonlocal shown_at, text
        if not bar.silent and time.monotonic() - shown_at > REFRESH_S:
            shown_at, text = time.monotonic(), f"perplexity {scoring.result().perplexity.value:.4f}"
        bar(text, scoring.n_windows, n_windows)

    try:
        with notes.progress("windows") as bar:
            yield show
    except Interrupted:
        if scoring.n_windows:
            perplexity = _shown(scoring.result().perplexity, 4)
            notes.say(f"after {scoring.n_windows} of {counted(n_windows, 'window')}: perplexity {perplexity}")
        raise
