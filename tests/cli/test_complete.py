"""`complete` through its functions: the prompt, the answer and the end."""

import io
import json
import sys

import pytest
import typer
from helpers.cli import run
from helpers.invoke import invoke
from helpers.models import LetterTokenizer, Scripted, tiny_model
from hypothesis import given
from hypothesis import strategies as st

from mistral_mlx.cli.answers import complete
from mistral_mlx.cli.answers.code_block import FirstCodeBlock
from mistral_mlx.cli.answers.job import Job, make_samplers
from mistral_mlx.cli.answers.prompt import Prompt
from mistral_mlx.cli.answers.sources import prompt_parts
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.errors import OptionError
from mistral_mlx.sampling.options import SamplingOptions

pytestmark = pytest.mark.usefixtures("_ready_stdin")
GREEDY = ("--temperature", "0", "--max-tokens", "4")


@pytest.fixture(scope="module")
def model():
    return tiny_model(sliding_window=None)[0]


def answer(model, capsys, *texts, prompt=None, status=0, quiet=True, **options):
    """Return what is written where the model answers `texts`, each to its end."""
    tokenizer = LetterTokenizer()
    samplers = [Scripted([*tokenizer.encode(text), 2]) for text in texts]
    for sampler in samplers:
        sampler.options = SamplingOptions(temperature=0.0)
    options = {"max_tokens": 100, "name": "tiny", "started": 0.0, **options}
    job = Job(prompt=prompt or Prompt(text="Hello"), samplers=samplers, **options)
    code = 0
    try:
        complete.run(job, model, tokenizer, Notes(quiet=quiet))
    except typer.Exit as exit:
        code = exit.exit_code
    assert code == status
    captured = capsys.readouterr()
    return captured.out, captured.err


class Stdin(io.TextIOWrapper):
    def __init__(self, data, *, terminal=False):
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self.isatty = lambda: terminal


def test_the_parts_of_a_prompt_are_joined_in_the_documented_order(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin(b"piped\n"))
    for name in ("a.py", "b.txt", "prompt"):
        (tmp_path / name).write_text(f"in {name}\n")
    parts = prompt_parts("argument", tmp_path / "prompt", [tmp_path / "a.py", tmp_path / "b.txt"])
    files = ["--- File: a.py ---\nin a.py", "--- File: b.txt ---\nin b.txt"]
    assert parts == ["piped", *files, "in prompt", "argument"]


def test_a_byte_order_mark_is_no_part_of_a_prompt(tmp_path, monkeypatch):
    """Some editors write one; it used to become three tokens of the prompt."""
    monkeypatch.setattr(sys, "stdin", Stdin(b"\xef\xbb\xbfpiped\n"))
    for name in ("a.py", "prompt"):
        (tmp_path / name).write_bytes(f"\ufeffin {name}\n".encode())
    parts = prompt_parts(None, tmp_path / "prompt", [tmp_path / "a.py"])
    assert parts == ["piped", "--- File: a.py ---\nin a.py", "in prompt", ""]


def test_an_empty_pipe_is_said_and_what_is_empty_on_purpose_is_not(monkeypatch):
    """`git diff | complete` used to answer without the change, and without a word about it."""
    remark = "standard input was empty"
    asked = ("complete", "-m", "no/where", "hi")
    assert remark in run(*asked, input=b"").stderr.decode()
    for said in (run(*asked), run(*asked, "-q", input=b""), run(*asked, input=b"x"), run(*asked[:-1], input=b"")):
        assert remark not in said.stderr.decode()


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OptionError, match=r"the file .*nowhere cannot be read"):
        invoke("complete", "-f", tmp_path / "nowhere", "x")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"raw": True, "prefill": "x"}, "--prefill begins an answer"),
        ({"raw": True, "template": "v3"}, "--raw continues"),
        ({"raw": True, "messages": [{}]}, "these are messages"),
        ({"suffix": "x", "system": "y"}, "filling in the middle takes no"),
    ],
)
def test_what_cannot_go_together_is_refused(options, said):
    with pytest.raises(OptionError, match=said):
        Prompt(text="x", **options)


@pytest.mark.parametrize("options", [{"system": "x"}, {"prefill": "x"}, {"messages": [{"role": "user"}]}])
def test_a_base_model_takes_plain_text_only(options):
    with pytest.raises(OptionError, match="needs a chat format"):
        Prompt(text="x", **options).encode(LetterTokenizer(has_chat_format=False))


def test_a_model_without_its_tokens_cannot_fill_in_the_middle():
    with pytest.raises(OptionError, match=r"cannot fill in the middle: it has no \[SUFFIX\] token"):
        Prompt(text="x", suffix="y").encode(LetterTokenizer())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--json", "--jsonl", "x"], "exclude each other"),
        (["--logprobs", "2", "x"], "--logprobs needs --json"),
        (["--logprobs", "-1", "--json", "x"], "--logprobs is -1"),
        (["--samples", "0", "x"], "--samples is 0; it must be 1 to"),
        (["--parallel", "-1", "x"], "--parallel is -1; it must be 1 to"),
        (["--draft", "16", "x"], "draft is 16; it must be a whole number from 0 to 15"),
        (["--fim-prefix", "a", "x"], "--fim-prefix is the prompt"),
        (["--var", "a=b", "x"], "--var is for the variables of a template"),
    ],
)
def test_impossible_options_are_refused_before_the_model_is_opened(args, said):
    with pytest.raises(OptionError, match=said):
        invoke("complete", *args)


def test_a_prefill_begins_the_answer_and_is_part_of_it(model, capsys):
    prompt = Prompt(text="Hello", prefill="abc")
    assert answer(model, capsys, " def", prompt=prompt) == ("abc def\n", "")
    assert prompt.encode(LetterTokenizer())[-3:] == LetterTokenizer().encode("abc")


def test_an_answer_may_be_written_at_once(model, capsys, monkeypatch):
    writes = []
    monkeypatch.setattr("mistral_mlx.cli.answers.output.write_text", writes.append)
    answer(model, capsys, "abc", stream=False)
    answer(model, capsys, "abc")
    assert writes == ["abc\n", "a", "b", "c", "\n"]


def test_samples_that_are_decoded_together_are_those_one_by_one(model, capsys):
    def texts(n_parallel):
        samplers = make_samplers(SamplingOptions(seed=3), 5)
        job = Job(Prompt(text="Hello"), "tiny", samplers, 12, 0.0)
        complete.run(complete.replace(job, n_parallel=n_parallel), model, LetterTokenizer(), Notes(quiet=True))
        return capsys.readouterr().out

    assert texts(1) == texts(3) == texts(5)


def test_samples_are_separated_by_a_blank_line(model, capsys):
    assert answer(model, capsys, "abc", "d\n", "e")[0] == "abc\n\nd\n\ne\n"


def test_samples_are_an_array_in_json_and_one_is_an_object(model, capsys):
    many, one = (json.loads(answer(model, capsys, *texts, as_json=True)[0]) for texts in (("ab", "c"), ("ab",)))
    assert [record["text"] for record in many] == ["ab", "c"]
    assert (one["text"], one["finish_reason"]) == ("ab", "stop")


def test_events_say_what_happens_while_it_does(model, capsys):
    out, _ = answer(model, capsys, "ab", "c", as_jsonl=True, prompt=Prompt(text="Hello", prefill="x"))
    events = [json.loads(line) for line in out.splitlines()]
    kinds = [(event["event"], event["index"], event.get("text")) for event in events]
    first = [("start", 0, None), ("prefill", 0, "x"), ("token", 0, "a"), ("token", 0, "b"), ("token", 0, "")]
    assert kinds[:6] == [*first, ("end", 0, None)]
    assert [kind[:2] for kind in kinds[6:]] == [("start", 1), ("prefill", 1), ("token", 1), ("token", 1), ("end", 1)]
    assert (events[0]["prompt_tokens"], events[5]["generation_tokens"], events[5]["finish_reason"]) == (9, 3, "stop")


def test_seeds_of_samples_follow_each_other():
    assert [sampler.seed for sampler in make_samplers(SamplingOptions(seed=5), 3)] == [5, 6, 7]
    first, second = make_samplers(SamplingOptions(), 2)
    assert second.seed == first.seed + 1


def test_log_probabilities_name_tokens(model, capsys):
    (record,) = [json.loads(answer(model, capsys, "a", as_json=True, n_logprobs=64)[0])]
    entry = record["logprobs"][0]
    assert (entry["token"], len(entry["top_logprobs"]), len(record["logprobs"])) == (6, 64, 2)
    texts = {other["token"]: other["text"] for other in entry["top_logprobs"]}
    assert (texts[6], texts[2], texts[58]) == ("a", "</s>", " ")
    assert next(o["logprob"] for o in entry["top_logprobs"] if o["token"] == 6) == entry["logprob"]


BLOCKS = [
    ("no block", None),
    ("a\n```\nb\n```\nc\n```\nd\n```\n", "b\n"),
    ("```python\nb\n\nc\n```", "b\n\nc\n"),
    ("~~~\n```\n~~~\n", "```\n"),
    ("````\n```\n````\n", "```\n"),
    ("1. x\n   ```sh\n   a\n     b\n   ```\n", "a\n  b\n"),
    ("```\nnever closed", "never closed\n"),
    ("`` ` ``\n```x``` y\n", None),
]


@pytest.mark.parametrize(("text", "code"), BLOCKS)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_first_code_block_is_found_however_it_arrives(text, code, size):
    block = FirstCodeBlock()
    parts = [block.add(text[at : at + size]) for at in range(0, len(text), size)]
    found = "".join([*parts, block.flush()])
    assert (found if block.found else None) == code


@given(st.lists(st.text("ab `~\n", max_size=6)))
def test_a_code_block_does_not_depend_on_the_pieces(pieces):
    whole, parts = FirstCodeBlock(), FirstCodeBlock()
    text = whole.add("".join(pieces)) + whole.flush()
    assert text == "".join(map(parts.add, pieces)) + parts.flush()


class Fenced(LetterTokenizer):
    LETTERS = LetterTokenizer.LETTERS.replace("Z", "`")


def test_only_the_code_block_is_written_and_what_follows_is_not_generated(model, capsys, monkeypatch):
    monkeypatch.setitem(globals(), "LetterTokenizer", Fenced)
    text = "See\n```py\na b\n```\nmore"
    assert answer(model, capsys, text, extract=True) == ("a b\n", "")
    record = json.loads(answer(model, capsys, text, extract=True, as_json=True)[0])
    assert (record["code"], record["text"], record["finish_reason"]) == ("a b\n", "See\n```py\na b\n```\n", "stop")


def test_no_code_block_is_a_failure(model, capsys):
    out, err = answer(model, capsys, "none", extract=True, status=7)
    assert (out, "the answer has no code block" in err) == ("", True)


def test_an_answer_cut_short_fails_if_it_is_to(model, capsys):
    assert answer(model, capsys, "abc", max_tokens=2)[0] == "ab\n"
    out, err = answer(model, capsys, "abc", max_tokens=2, fail_on_length=True, status=6)
    assert (out, "cut short" in err) == ("ab\n", True)
    answer(model, capsys, "abc", fail_on_length=True)


def test_piping_in_and_out_leaves_nothing_but_text(endless):
    result = run("complete", "-m", endless, "--quiet", *GREEDY, "Repeat:", input=b"a\nb")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"the the the the\n", b"")
    assert b"\x1b" not in result.stdout
