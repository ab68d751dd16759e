"""Stop strings: ids become text that ends before the first of them. Knows no model."""

from collections.abc import Sequence

from mistral_mlx.tokenizer.detokenizer import StreamingDetokenizer


class StoppedText:
    """Text of ids, ending before the first stop string. What may be the beginning of one is held back.

    `add` is `decode` and `release`; a caller may take something out in between.
    """

    def __init__(self, detokenizer: StreamingDetokenizer, stop: Sequence[str]) -> None:
        self.stopped = False
        self._detokenizer, self._stop, self._held = detokenizer, stop, ""

    def add(self, token: int) -> str:
        """Return the text that `token` releases."""
        return self.release(self.decode(token))

    def finish(self, *, cut: bool) -> str:
        """Return the text still held back; nothing after a stop string, and no half character if it was `cut` off."""
        if self.stopped:
            return ""
        return self.release(self.decode_rest(cut=cut)) + ("" if self.stopped else self._held)

    def decode(self, token: int) -> str:
        """Return the characters that `token` completes."""
        return self._detokenizer.add(token)

    def decode_rest(self, *, cut: bool) -> str:
        """Return the last characters; no half one if the text was `cut` off."""
        return self._detokenizer.flush(cut=cut)

    def release(self, text: str) -> str:
        """Return what of the text can be shown after `text` came."""
        self._held += text
        places = [place for place in map(self._held.find, self._stop) if place >= 0]
        self.stopped = bool(places)
        end = min(places) if places else len(self._held) - self._n_doubtful()
        released, self._held = self._held[:end], self._held[end:]
        return released

    def _n_doubtful(self) -> int:
        """Return how many characters at the end may be the beginning of a stop string."""
        longest = max(map(len, self._stop), default=1) - 1
        lengths = range(min(longest, len(self._held)), 0, -1)
        return next((n for n in lengths if any(s.startswith(self._held[-n:]) for s in self._stop)), 0)
