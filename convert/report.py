"""What a conversion did, in numbers; knows nothing of how they are shown."""

from dataclasses import asdict, dataclass

from mistral_mlx.convert.plan.outlook import Outlook
from mistral_mlx.measure.scores import Evaluation


@dataclass(frozen=True)
class Report:
    """The result of a conversion, or of planning one."""

    source: str
    target: str
    source_bytes: int  # of the weights
    target_bytes: int  # of the weights, packed ones with their scales and biases
    bits_per_weight: float
    parameters: int
    kept: list[tuple[str, str]]  # matrices left unquantized, and why; norms never are quantized and not listed
    errors: list[tuple[str, float]]  # |w - unpacked| / |w| of what was quantized, worst first
    tokenizer: bool  # whether one was found
    notes: list[str]  # one-line remarks for the user
    needed_bytes: int  # on the disk, all files
    free_bytes: int  # on the disk before the conversion
    dry_run: bool  # nothing was written
    verified: Evaluation | None  # the result against its source, if this was asked for
    verdict: str | None  # the loss that was measured, in words
    unverified: str | None  # why nothing could be measured though it was asked for; the target is written
    seconds: float
    choices: list[Outlook]  # of a dry run: what else could be made

    def as_dict(self) -> dict[str, object]:
        """Return everything as JSON knows it."""
        return asdict(self)
