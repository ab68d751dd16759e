"""The demo model, shared: 3 key heads, 30 layers, a tied head in 8 bits and all else in 4."""

import json

import pytest
from helpers.cli import run
from helpers.ranks import run_ranks

pytestmark = [pytest.mark.distributed, pytest.mark.real, pytest.mark.cpu]

GREEDY = ("--temperature", "0", "--seed", "1", "--exact")
PROMPT = "Once upon a time there was a king who"
CHAT = "What is the capital of France?\n/undo\nName a color.\nAnother one.\n"
LINES = [
    "Name a color.",
    "What is the capital of France?",
    "Count to three.",
    "Say hello to the king of a small country.",
]


def both(n, *args, input="", pipeline=False):
    """Return what one process has written, and what `n` have."""
    alone = run(*args, "--threads", 1, **({"input": input.encode()} if input else {}))
    ranks = run_ranks(n, *args, *(["--pipeline"] if pipeline else []), input=input)
    assert [rank.status for rank in ranks] == [alone.returncode] * n, ranks
    assert [(rank.stdout, rank.stderr) for rank in ranks[1:]] == [("", "")] * (n - 1)
    return alone.stdout.decode(), ranks[0].stdout


@pytest.mark.parametrize(("n", "pipeline"), [(3, False), (4, True)])
def test_a_text_goes_on_as_with_one_process(demo, n, pipeline):
    args = ("complete", "-q", "-m", demo, "--raw", *GREEDY, "-n", 60, PROMPT)
    alone, shared = both(n, *args, pipeline=pipeline)
    assert shared == alone
    assert len(shared) > 100


def test_a_chat_from_a_pipe_with_a_turn_taken_back(demo):
    alone, shared = both(2, "chat", "-q", "-m", demo, *GREEDY, "-n", 30, input=CHAT, pipeline=True)
    assert shared == alone
    assert "Paris" in shared


def test_the_lines_of_a_batch_are_answered_together(demo, tmp_path):
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(f"{json.dumps(line)}\n" for line in LINES))
    alone, shared = both(3, "batch", "-q", "-m", demo, *GREEDY, "-n", 12, lines)
    assert [json.loads(line) for line in shared.splitlines()] == [json.loads(line) for line in alone.splitlines()]
    assert len(shared.splitlines()) == 4


def test_speeds_are_measured_after_a_long_text(demo):
    args = ("bench", "-m", demo, "-p", 64, "-n", 8, "--depth", 300, "--repeats", 1, "--json", "--pipeline")
    first, second = run_ranks(2, *args)
    measured = json.loads(first.stdout)
    assert (measured["depth"], measured["threads"]) == (300, 1)
    assert min(measured["prompt_tps"], measured["generation_tps"]) > 0
    assert (first.status, second) == (0, (0, "", ""))
