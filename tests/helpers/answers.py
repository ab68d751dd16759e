"""Random answers of tiny models: prompts that repeat themselves, any sampling, limits and stop strings."""

import random

from helpers.models import LetterTokenizer, tiny_model

from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.generation.stream import stream
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.sampling.sampler import Sampler

WINDOWS = (4, 70, None, [4, None])
LENGTHS = (3, 20, 120, 127, 140, 260, 390)  # a ring for 4 tokens has 128 slots
SAMPLINGS = (
    {"temperature": 0},
    {"temperature": 0, "repetition_penalty": 1.3, "repetition_context_size": 30},
    {"temperature": 0.3},
    {"temperature": 1, "top_p": 0.9, "presence_penalty": 0.5},
    {"temperature": 1.2, "min_p": 0.05, "dry_multiplier": 0.8, "dry_sequence_breakers": ()},
    {"temperature": 0.8, "xtc_probability": 0.5, "xtc_threshold": 0.05},
)
TOKENIZER = LetterTokenizer()


class Quoting:
    """A sampler whose answers repeat the prompt, with an error now and then."""

    def __init__(self, ids, seed):
        self.ids, self.rng = ids, random.Random(seed)

    def __call__(self, logits, history):
        return self.ids[len(history) % len(self.ids)] if self.rng.random() < 0.95 else self.rng.randrange(6, 64)


class Case:
    """A model, a prompt that repeats itself, and how it is answered."""

    def __init__(self, models, seed):
        self.rng = rng = random.Random(seed)
        self.model = rng.choice(models)
        part = [rng.randrange(6, 64) for _ in range(rng.randint(4, 30))]
        self.ids = [1, *(part * 100)[: rng.choice(LENGTHS)]]
        self.sampling, self.seed = rng.choice((*SAMPLINGS, None)), seed
        self.options = {
            "max_tokens": rng.randint(1, 24 if self.sampling else 60),
            "stop": rng.choice([(), (), ("a",), ("bc", "Q"), ("e\n",)]),
            "n_logprobs": rng.choice([None, None, 2]) if self.sampling else 2,
        }

    def answer(self, timeline, **options):
        sampler = Sampler(seed=self.seed, **self.sampling) if self.sampling else Quoting(self.ids, self.seed)
        return stream(timeline, TOKENIZER, self.ids, AnswerOptions(sampler=sampler, **self.options, **options))

    def plain(self):
        return list(self.answer(Timeline(self.model), draft=0))


def tiny_models():
    return [tiny_model(seed=3, sliding_window=window)[0] for window in WINDOWS]


def told(responses):
    return [(r.text, r.token, r.finish_reason, r.logprobs) for r in responses]
