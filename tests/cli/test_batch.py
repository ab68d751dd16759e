"""`batch`: which lines it accepts, what it keeps of an earlier run, and how it ends."""

import io
import json
import re
from functools import partialmethod

import pytest
from helpers.invoke import invoke
from helpers.tiny_folder import write_tiny_folder

from mistral_mlx.cli.answers import batch, batch_files
from mistral_mlx.cli.answers.batch import begin
from mistral_mlx.cli.answers.batch_files import Task
from mistral_mlx.cli.answers.batch_requests import Defaults, Request, request_of
from mistral_mlx.cli.answers.prompt import Prompt
from mistral_mlx.cli.options.answer import AnswerKnobs
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.signals import Interrupted
from mistral_mlx.cli.terminal.streams import OutputError
from mistral_mlx.errors import OptionError
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.model.loading import load
from mistral_mlx.sampling.sampler import Sampler

GREEDY = ("--temperature", "0", "--max-tokens", "4", "--quiet")
LINES = ['"the king"', '{"id": "b", "prompt": "the ring", "max_tokens": 2}', "[1]", '{"prompt": "the window", "n": 1}']


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_folder(tmp_path_factory.mktemp("models") / "tiny", sliding_window=None)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "in").write_text("\n".join(LINES) + "\n\n")
    return tmp_path / "in", tmp_path / "out"


def run(folder, files, *args):
    result = invoke("batch", files[0], "-m", folder, "-o", files[1], *GREEDY, *args)
    return result.exit_code, [json.loads(line) for line in files[1].read_text().splitlines()]


def asked(value, **defaults):
    task = Task(3, 4, json.dumps(value).encode())
    return request_of(task, Defaults(AnswerKnobs(temperature=0.0, seed=5, max_tokens=9), **defaults))


def test_results_are_in_order_and_what_is_wrong_with_a_line_is_its_result(folder, files):
    status, records = run(folder, files)
    assert (status, [record["line"] for record in records]) == (8, [1, 2, 3, 4])
    answered = json.loads(invoke("complete", "-m", folder, *GREEDY, "--json", input="the king").output)
    assert (records[0]["text"], records[0]["generation_tokens"]) == (answered["text"], answered["generation_tokens"])
    assert (records[1]["id"], records[1]["generation_tokens"]) == ("b", 2)
    assert "message 1 is 1" in records[2]["error"] and "the line sets n" in records[3]["error"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"Name a colour.", 'write it as "Name a colour."'),
        (b'He said "no"', r'write it as "He said \"no\""'),
        (b"x" * 100, 'write it as "...", a text of JSON'),
        (b'{"prompt": ', "Expecting value"),
        (b"caf\xe9", "can't decode byte 0xe9"),
    ],
)
def test_a_line_that_is_not_json_says_how_to_write_it(line, said):
    """A plain line used to get the words of a parser of JSON."""
    with pytest.raises(OptionError) as refused:
        Task(0, 1, line).value()
    assert str(refused.value).startswith("the line is not JSON: ") and said in str(refused.value)


def test_an_unknown_key_is_answered_with_all_that_there_are():
    """The list used to leave out what is no option of sampling."""
    with pytest.raises(OptionError, match=r"which is none of id, prompt, messages, system, prefill, tools, .*top_p"):
        asked({"prompt": "x", "promt": "y"})


def test_without_an_output_the_results_go_to_stdout(folder, files):
    result = invoke("batch", "-", "-m", folder, *GREEDY, input='"the king"\n')
    assert (result.exit_code, [json.loads(line)["line"] for line in result.output.splitlines()]) == (0, [1])


@pytest.mark.parametrize("n_kept", [0, 1, 4])
@pytest.mark.parametrize("n_bytes", [0, 3, 40])
def test_a_run_goes_on_where_it_ended_and_cuts_half_a_line_off(folder, files, n_kept, n_bytes, monkeypatch):
    whole = run(folder, files)[1]
    lines = files[1].read_bytes().splitlines(keepends=True)
    files[1].write_bytes(b"".join(lines[:n_kept]) + lines[0][:n_bytes])
    kept = files[1].read_bytes()[: len(b"".join(lines[:n_kept]))]
    results, do = [], batch.request_of
    monkeypatch.setattr(batch, "request_of", lambda task, *args: results.append(task.index) or do(task, *args))
    status, records = run(folder, files)
    assert (status, [record.get("text") for record in records]) == (8, [record.get("text") for record in whole])
    assert (files[1].read_bytes().startswith(kept), results) == (True, list(range(n_kept, 4)))


@pytest.mark.parametrize("text", ["something else", "something else\n", '{"line": 1}\n', '{"line": 1, "input": "0"}\n'])
def test_a_file_that_holds_something_else_is_left_alone(folder, files, text):
    files[1].write_text(text)
    with pytest.raises(OptionError, match="choose another --output"):
        run(folder, files)
    assert files[1].read_text() == text


def test_results_of_another_input_or_model_are_not_added_to(folder, files):
    run(folder, files)
    with pytest.raises(OptionError, match="by the model"):
        invoke("batch", files[0], "-m", "other", "-o", files[1], *GREEDY)
    files[0].write_text('"a"\n' + files[0].read_text())
    with pytest.raises(OptionError, match="line 1 is not the result of this input"):
        run(folder, files)


def test_a_device_is_no_output(folder, files):
    """`/dev/zero` and `/dev/full` can be read for ever."""
    with pytest.raises(OptionError, match="--output is /dev/null, which is no file"):
        run(folder, (files[0], "/dev/null"))


def test_two_runs_do_not_write_to_the_same_file(files):
    tasks = batch_files.read_tasks(b'"a"')
    with (
        batch_files.Results(files[1], tasks, "m"),
        pytest.raises(OutputError, match="another process"),
        batch_files.Results(files[1], tasks, "m"),
    ):
        pass


def test_an_interrupt_keeps_what_is_done(folder, files, monkeypatch):
    def interrupt(task, defaults, do=batch.request_of):
        if task.index == 1:
            raise Interrupted(2)
        return do(task, defaults)

    monkeypatch.setattr(batch, "request_of", interrupt)
    status, records = run(folder, files, "--parallel", "1")
    assert (status, [record["line"] for record in records]) == (130, [1])


def test_results_go_to_stdout_while_a_terminal_shows_progress(folder, monkeypatch):
    """They used to be written to the terminal, and the file behind stdout remained empty."""
    screen, output = io.StringIO(), io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr("sys.stdout", output)
    monkeypatch.setattr(Notes, "progress", partialmethod(Notes.progress, delay_s=0))
    with batch_files.Results(None, batch_files.read_tasks(b'"a"\n"b"'), "m") as results:
        batch.run(results, Defaults(AnswerKnobs(temperature=0.0, max_tokens=2)), *load(folder), Notes())
    assert [json.loads(line)["line"] for line in output.getvalue().splitlines()] == [1, 2]
    assert re.search("answering, [0-9]+ tok/s: 1 of 2 lines", screen.getvalue()) and '"line"' not in screen.getvalue()


def test_no_prompts_and_no_file_are_usage_errors(tmp_path):
    with pytest.raises(OptionError, match="there are no prompts"):
        invoke("batch", "-", "-m", "x", input="\n \n")
    with pytest.raises(OptionError, match="cannot be read"):
        invoke("batch", tmp_path / "nowhere", "-m", "x")


def test_a_byte_order_mark_before_the_first_line_is_ignored(folder, tmp_path):
    """The line used to be refused as no JSON."""
    (tmp_path / "in").write_bytes(b'\xef\xbb\xbf"the king"\n')
    result = invoke("batch", tmp_path / "in", "-m", folder, *GREEDY)
    assert "text" in json.loads(result.output)


def test_one_line_is_counted_in_the_singular(folder, tmp_path):
    """It used to be "1 of 1 lines"."""
    (tmp_path / "in").write_text("1\n")
    assert "1 of 1 line could not be answered" in invoke("batch", tmp_path / "in", "-m", folder, *GREEDY).stderr


def test_a_line_has_the_defaults_that_it_does_not_change():
    request = asked({"prompt": "a", "system": "b", "prefill": "c ", "temperature": 1, "stop": ["x"]}, system="d")
    assert (request.prompt.system, request.prompt.prefill, request.max_tokens, request.stop) == ("b", "c", 9, ("x",))
    assert (request.sampler.options.temperature, request.sampler.seed) == (1.0, 8)
    assert asked("a", system="d").prompt == Prompt(text="a", system="d", messages=[])


def test_a_line_may_ask_for_the_system_prompt_of_the_model(tmp_path, files):
    folder = write_tiny_folder(tmp_path / "model")
    (folder / "SYSTEM_PROMPT.txt").write_text("the king")
    lines = [{"prompt": "the", "system": system} for system in ("@model", "the king", "@models")]
    files[0].write_text("\n".join(map(json.dumps, lines)))
    status, records = run(folder, files)
    n_tokens = [record["prompt_tokens"] for record in records]
    assert status == 0 and n_tokens[0] == n_tokens[1] != n_tokens[2]
    assert records[0]["text"] == records[1]["text"]
    files[1].unlink()
    for content, error in ((None, "has no SYSTEM_PROMPT.txt"), ("", "SYSTEM_PROMPT.txt is empty")):
        (folder / "SYSTEM_PROMPT.txt").unlink(missing_ok=True)
        if content is not None:
            (folder / "SYSTEM_PROMPT.txt").write_text(content)
        status, records = run(folder, files)
        assert status == 8 and error in records[0]["error"] and "text" in records[1]
        files[1].unlink()


def test_an_open_answer_at_the_end_of_messages_is_its_prefill():
    user = {"role": "user", "content": "a"}
    request = asked([user, {"role": "assistant", "content": "b "}])
    assert (request.prompt.messages, request.prompt.prefill) == ([user], "b")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1, "neither a text"),
        ({}, "needs a prompt"),
        ({"prompt": "a", "messages": ["b"]}, "not both"),
        ({"prompt": 1}, "prompt of the line is not a text"),
        ({"prompt": "a", "seed": "1"}, "the line: seed is 1"),
        ({"prompt": "a", "top_p": 2}, "top_p is 2"),
    ],
)
def test_lines_that_cannot_be_asked_say_why(value, said):
    with pytest.raises(OptionError, match=said):
        asked(value)


@pytest.mark.parametrize("window", [None, 8])
def test_what_prompts_begin_with_is_read_once_and_changes_nothing(tmp_path, window):
    model, tokenizer = load(write_tiny_folder(tmp_path / "model", sliding_window=window))

    def answers(texts):
        timeline = Timeline(model, max_snapshot_bytes=1 << 20)
        return [list(begin(request(text), timeline, tokenizer)) for text in texts]

    def request(text):
        return Request(Prompt(text=text), Sampler(temperature=0), 6, ())

    texts = ["the king and the crown", "the king and the ring", "Once", "the king and the ring"]
    shared, alone = answers(texts), [answers([text])[0] for text in texts]
    assert [[r.token for r in answer] for answer in shared] == [[r.token for r in answer] for answer in alone]
    assert shared[1][-1].prompt_tokens == alone[1][-1].prompt_tokens
    assert shared[1][-1].cached_tokens > 0


def test_a_snapshot_of_a_prompts_beginning_serves_where_a_ring_has_wrapped(tmp_path):
    """Once a ring had wrapped, every later prompt used to be read from its first token."""
    model, tokenizer = load(write_tiny_folder(tmp_path / "model", sliding_window=24))
    timeline = Timeline(model, max_snapshot_bytes=1 << 20)
    texts = ["the king and the crown", "the king and the ring" + " and the ring" * 40, "the king and"]
    requests = [Request(Prompt(text=text), Sampler(temperature=0), 4, ()) for text in texts]
    cached = [list(begin(request, timeline, tokenizer))[-1].cached_tokens for request in requests]
    assert cached[0] == 0
    assert cached[1] > 0
    assert cached[2] > 0
