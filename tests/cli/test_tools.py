"""Tools, messages, reasoning and its effort in `complete` and `batch`."""

import json
from dataclasses import replace

import pytest
import typer
from helpers.invoke import invoke
from helpers.messages import assistant, user
from helpers.models import Scripted, tiny_model
from helpers.oracle import ADD, call, calls, result
from helpers.tokenizer_files import tekken_folder

from mistral_mlx import OptionError, encode_chat, load_tokenizer
from mistral_mlx.cli.answers import batch, complete
from mistral_mlx.cli.answers.batch_files import read_tasks
from mistral_mlx.cli.answers.batch_requests import Defaults, request_of
from mistral_mlx.cli.answers.job import Job
from mistral_mlx.cli.answers.prompt import Prompt
from mistral_mlx.cli.answers.sources import read_list
from mistral_mlx.cli.options.answer import AnswerKnobs
from mistral_mlx.cli.statuses import Status
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.sampling.options import SamplingOptions

pytestmark = pytest.mark.usefixtures("_ready_stdin")
CALLS, ARGS, THINK, END, EOS = 9, 32, 34, 35, 2
NOW = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
OFFERING = Prompt(text="2+3?", tools=[ADD, NOW])


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=1300, sliding_window=None, max_position_embeddings=4096)[0]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(tekken_folder(tmp_path_factory.mktemp("v13"), 300, "v13"))


def written(tokenizer, *names, arguments='{"a": 2}', before=""):
    """Return the ids of an answer that calls tools."""
    ids = tokenizer.encode(before)
    for name in names:
        ids += [CALLS, *tokenizer.encode(name), ARGS, *tokenizer.encode(arguments)]
    return ids


def answer(model, tokenizer, capsys, ids, prompt=OFFERING, *, quiet=True, **options):
    """Return what is written where the model answers with `ids`."""
    sampler = Scripted([*ids, EOS])
    sampler.options = SamplingOptions(temperature=0.0)
    options = {"max_tokens": 100, "name": "tiny", "started": 0.0, **options}
    complete.run(Job(prompt, samplers=[sampler], **options), model, tokenizer, Notes(quiet=quiet))
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_calls_are_data_in_the_json(model, tokenizer, capsys):
    ids = written(tokenizer, "add", "now", before="I add. ")
    found = json.loads(answer(model, tokenizer, capsys, ids, as_json=True)[0])
    assert (found["text"], found["finish_reason"]) == ("I add. ", "tool_calls")
    assert [(c["name"], c["arguments"]) for c in found["tool_calls"]] == [("add", {"a": 2}), ("now", {"a": 2})]
    again = [*[user("2+3?")], calls(*found["tool_calls"]), *(result("5", c["id"]) for c in found["tool_calls"])]
    assert encode_chat(tokenizer, again, tools=[ADD, NOW])


def test_an_answer_without_calls_says_so(model, tokenizer, capsys):
    found = json.loads(answer(model, tokenizer, capsys, tokenizer.encode("5"), as_json=True)[0])
    assert (found["text"], found["finish_reason"], found["tool_calls"]) == ("5", "stop", [])
    found = json.loads(answer(model, tokenizer, capsys, tokenizer.encode("5"), Prompt(text="a"), as_json=True)[0])
    assert "tool_calls" not in found and "reasoning" not in found and found["reasoning_tokens"] == 0


def test_a_call_that_a_limit_cuts_is_text_and_a_failure(model, tokenizer, capsys):
    ids = written(tokenizer, "add", "add", arguments='{"a": 1234}', before="I add. ")
    for as_json in (True, False):
        with pytest.raises(typer.Exit) as ended:
            answer(model, tokenizer, capsys, ids, as_json=as_json, max_tokens=len(ids) - 2, quiet=False)
        said = capsys.readouterr()
        assert ended.value.exit_code == Status.CUT_SHORT
        assert said.err.splitlines()[-1].startswith(
            "mistral-mlx: error: the answer has a call of a tool that is not whole; it was cut"
        )
        cut = 'I add. add{"a": 1234}add{"a": 123'
        if as_json:
            found = json.loads(said.out)
            assert (found["text"], found["tool_calls"], found["finish_reason"]) == (cut, [], "length")
        else:
            assert said.out == cut + "\n"


def test_calls_in_plain_text_are_a_line_of_json_each(model, tokenizer, capsys):
    out, _ = answer(model, tokenizer, capsys, written(tokenizer, "add", "now"))
    assert [json.loads(line)["name"] for line in out.splitlines()] == ["add", "now"]
    out, _ = answer(model, tokenizer, capsys, written(tokenizer, "add", before="I add."))
    assert out.splitlines()[0] == "I add." and json.loads(out.splitlines()[1])["name"] == "add"


def test_calls_are_in_the_last_event(model, tokenizer, capsys):
    out, _ = answer(model, tokenizer, capsys, [THINK, 1100, END, *written(tokenizer, "add")], as_jsonl=True)
    events = [json.loads(line) for line in out.splitlines()]
    assert events[-1]["tool_calls"][0]["name"] == "add" and events[-1]["finish_reason"] == "tool_calls"
    assert "".join(e.get("reasoning", "") for e in events) == tokenizer.decode([1100])
    assert "".join(e.get("text", "") for e in events) == ""


# Reasoning


def test_reasoning_is_beside_the_text_in_json(model, tokenizer, capsys):
    ids = [THINK, *tokenizer.encode("Hm."), END, *tokenizer.encode("yes")]
    found = json.loads(answer(model, tokenizer, capsys, ids, Prompt(text="a"), as_json=True)[0])
    assert (found["text"], found["reasoning"], found["reasoning_tokens"]) == ("yes", "Hm.", 5)


@pytest.mark.parametrize(
    ("reasoning", "quiet", "err"),
    [("show", False, "Hm.\n"), ("hide", False, ""), (None, False, ""), ("show", True, "")],
)
def test_reasoning_is_on_stderr_or_left_out_in_a_pipe(reasoning, quiet, err, model, tokenizer, capsys):
    ids = [THINK, *tokenizer.encode("\nHm.\n"), END, *tokenizer.encode("yes")]
    said = answer(model, tokenizer, capsys, ids, Prompt(text="a"), reasoning=reasoning, quiet=quiet)
    assert said == ("yes\n", err)


def test_reasoning_is_dim_and_inert_on_a_terminal(model, tokenizer, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    ids = [THINK, *tokenizer.encode("Hm\x1b."), END, *tokenizer.encode("yes")]
    out, err = answer(model, tokenizer, capsys, ids, Prompt(text="a"), quiet=False)
    assert out == "yes\n" and "\x1b[2mH\x1b[0m" in err and "␛" in err and "\x1b." not in err


def test_a_raw_text_has_no_reasoning(model, tokenizer, capsys):
    ids = tokenizer.encode("<think>a</think>b")
    assert answer(model, tokenizer, capsys, ids, Prompt(text="a", raw=True))[0] == "<think>a</think>b\n"


def test_a_wrong_value_of_reasoning_is_refused():
    with pytest.raises(OptionError, match="--reasoning is maybe; it must be show or hide"):
        Job(Prompt(text="a"), samplers=[], max_tokens=1, name="", started=0.0, reasoning="maybe")


# Prompts


def test_the_prompt_offers_tools_and_has_the_effort(tmp_path):
    tokenizer = load_tokenizer(tekken_folder(tmp_path, 300, "v15"))
    prompt = Prompt(text="a", tools=[ADD], reasoning_effort="high")
    assert prompt.encode(tokenizer) == encode_chat(tokenizer, [user("a")], tools=[ADD], reasoning_effort="high")


@pytest.mark.parametrize(
    ("option", "name"), [({"tools": [ADD]}, "--tools"), ({"reasoning_effort": "high"}, "--reasoning-effort")]
)
def test_a_text_without_format_takes_neither_tools_nor_effort(option, name, tokenizer):
    with pytest.raises(OptionError, match=f"{name} needs a chat format"):
        Prompt(text="a", raw=True, **option).encode(tokenizer)


def test_the_last_words_of_the_model_begin_the_answer():
    prompt = Prompt().answering([user("a"), assistant("Sure, ")])
    assert (prompt.messages, prompt.prefill) == ([user("a")], "Sure,")
    for last in (user("b"), calls(call()), assistant("b", reasoning="c")):
        assert Prompt().answering([user("a"), last]).messages == [user("a"), last]


@pytest.mark.parametrize(
    ("text", "said"), [("{", "is not JSON"), ('{"a": 1}', "a list in JSON is expected"), ("[]", "a list")]
)
def test_a_file_that_is_no_list_is_refused(text, said, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(OptionError, match=f"x.json .--tools. .*{said}"):
        read_list(str(tmp_path / "x.json"), "--tools")


def test_messages_and_tools_come_from_files(folder, tmp_path):
    (tmp_path / "m.json").write_text(json.dumps([user("a"), calls(call()), result("The capital")]))
    (tmp_path / "t.json").write_text(json.dumps([ADD]))
    more = ("complete", "-m", folder, "--temperature", "0", "-n", "2", "--json")
    with pytest.raises(OptionError, match=r"no \[TOOL_CALLS\] token|no \[AVAILABLE_TOOLS\] token"):
        invoke(*more, "--messages", tmp_path / "m.json", "--tools", tmp_path / "t.json")
    (tmp_path / "m.json").write_text(json.dumps([user("a")]))
    done = invoke(*more, "--messages", tmp_path / "m.json")
    assert json.loads(done.stdout)["text"] == json.loads(invoke(*more, "a").stdout)["text"]
    with pytest.raises(OptionError, match="--messages is the whole prompt"):
        invoke(*more, "--messages", tmp_path / "m.json", "a")
    with pytest.raises(OptionError, match="reasoning_effort is high; this model has no such setting"):
        invoke(*more, "--reasoning-effort", "high", "a")


# Batch


def request(line, **defaults):
    (task,) = read_tasks(json.dumps(line).encode())
    return request_of(task, Defaults(AnswerKnobs(), **defaults))


def test_a_line_may_have_tools_and_an_effort():
    line = {"messages": [user("a"), calls(call()), result()], "tools": [ADD], "reasoning_effort": "high"}
    asked = request(line).prompt
    assert (asked.tools, asked.reasoning_effort, len(asked.messages)) == ([ADD], "high", 3)
    with pytest.raises(OptionError, match="tools of the line is not a list"):
        request({"prompt": "a", "tools": "add"})


def test_a_result_has_reasoning_and_calls(model, tokenizer, monkeypatch):
    asked = request({"prompt": "2+3?", "tools": [ADD]})
    sampler = Scripted([THINK, 1100, END, *written(tokenizer, "add", before="So: "), EOS])
    asked = replace(asked, sampler=sampler)
    responses = list(batch.begin(asked, Timeline(model), tokenizer))
    found, last = batch.answer_of(asked, responses, tokenizer), responses[-1]
    assert (found["text"], found["reasoning"]) == ("So: ", tokenizer.decode([1100]))
    assert (found["finish_reason"], found["tool_calls"][0]["name"], last.reasoning_tokens) == ("tool_calls", "add", 3)
