"""Whether an answer calls tools, `--tool-choice`, with models of random weights: what they call is always right."""

import json
from dataclasses import replace

import jsonschema
import pytest
from helpers.called import SCHEMAS, TOOLS, read_by_mistral_common, tool
from helpers.invoke import invoke
from helpers.models import Scripted, tiny_config, tiny_weights, write_folder
from helpers.tokenizer_files import both_tokenizers

from mistral_mlx import OptionError, Sampler, load
from mistral_mlx.cli.answers import batch
from mistral_mlx.cli.answers.batch_files import read_tasks
from mistral_mlx.cli.answers.batch_requests import OWN_KEYS, Defaults, request_of
from mistral_mlx.cli.answers.prompt import Prompt
from mistral_mlx.cli.answers.tool_choice import ToolChoice, tool_choice_of
from mistral_mlx.cli.options.answer import AnswerKnobs
from mistral_mlx.cli.statuses import Status
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.model.args import ModelArgs

pytestmark = pytest.mark.usefixtures("_ready_stdin")
KINDS = ("v3", "v3 tekken", "v11 tekken", "v13 tekken")
SURELY = "+100"  # a bias that makes a token the likeliest


class Model:
    """A model folder with random weights, and mistral-common's tokenizer of its version."""

    def __init__(self, path, kind):
        tokenizer, self.mistral_common = both_tokenizers(path, kind)
        config = tiny_config(vocab_size=tokenizer.vocab_size, sliding_window=None, max_position_embeddings=8192)
        self.path = write_folder(path, config, tiny_weights(ModelArgs.from_config(config)))
        self.kind, self.control = kind, tokenizer.control
        think = self.control.get("[THINK]")
        self.no_thought = [] if think is None else [f"{think}-inf"]  # it would have no end

    def complete(self, *options, tools=TOOLS, thinks=False):
        (self.path / "tools.json").write_text(json.dumps(tools))
        common = ("complete", "-m", self.path, "--tools", self.path / "tools.json", "--temperature", "1", "-q")
        return invoke(*common, *([] if thinks else self.biased(*self.no_thought)), *options, "2+3?")

    def biased(self, *biases):
        return [word for bias in biases for word in ("--logit-bias", bias)]

    def events(self, *options, **more):
        """Return the ids of an answer, without the one that ends it, and its last event."""
        *events, end = map(json.loads, self.complete("--jsonl", "-n", "3000", *options, **more).stdout.splitlines())
        return [event["token"] for event in events[1:] if event["token"] != 2], end


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The models of KINDS, made when they are asked for."""
    made = {}

    def model(kind):
        if kind not in made:
            made[kind] = Model(tmp_path_factory.mktemp("model"), kind)
        return made[kind]

    return model


def judged(ids, end, model):
    """Return the calls of the last event: calls of the tools, and the same that mistral-common reads in the ids."""
    made = end["tool_calls"]
    assert end["finish_reason"] == "tool_calls" and made
    for call in made:
        jsonschema.validate(call["arguments"], SCHEMAS[call["name"]])
    _, theirs = read_by_mistral_common(ids, model.mistral_common)
    assert [(call["name"], call["arguments"]) for call in made] == [(name, arguments) for name, arguments, _ in theirs]
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampling", [("--seed", "0"), ("--seed", "1"), ("--temperature", "0")])
def test_required_calls_are_right_with_every_model(kind, sampling, models):
    model = models(kind)
    ids, end = model.events("--tool-choice", "required", *sampling)
    assert ids[0] == model.control["[TOOL_CALLS]"]
    judged(ids, end, model)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCHEMAS)
def test_a_named_tool_is_called_once(kind, name, models):
    model = models(kind)
    (made,) = judged(*model.events("--tool-choice", name), model)
    assert made["name"] == name


@pytest.mark.parametrize("kind", KINDS)
def test_by_default_the_model_decides_and_its_calls_are_right(kind, models):
    model = models(kind)
    call = model.control["[TOOL_CALLS]"]
    ids, end = model.events("--logit-bias", f"{call}{SURELY}")
    made = judged(ids, end, model)
    assert len(made) == (32 if kind.startswith(("v11", "v13")) else len(made))  # it would go on without end
    ids, end = model.events("--logit-bias", f"{call}-inf", "-n", "20")
    assert end["tool_calls"] == [] and call not in ids


@pytest.mark.parametrize("kind", KINDS)
def test_with_none_nothing_is_called(kind, models):
    model = models(kind)
    call = model.control["[TOOL_CALLS]"]
    ids, end = model.events("--tool-choice", "none", "--logit-bias", f"{call}{SURELY}", "-n", "20")
    assert call not in ids and end["tool_calls"] == []
    offered, _ = model.events("--tool-choice", "none", "--seed", "1", "-n", "20")
    free, _ = model.events("--seed", "1", "-n", "20")  # the same prompt: the tools are in it
    assert offered == free


def test_calls_are_bound_after_a_thought_too(models):
    model = models("v13 tekken")
    think, end = model.control["[THINK]"], model.control["[/THINK]"]
    bias = model.biased(f"{think}+90", f"{end}{SURELY}")
    ids, last = model.events("--tool-choice", "required", *bias, thinks=True)
    assert ids[:3] == [think, end, model.control["[TOOL_CALLS]"]]
    judged(ids[2:], last, model)


def test_plain_text_has_a_line_of_json_for_each_call(models):
    out = models("v13 tekken").complete("--tool-choice", "required", "--seed", "2").stdout
    assert all(set(json.loads(line)) == {"id", "name", "arguments"} for line in out.splitlines())


@pytest.mark.parametrize(("limit", "said"), [(1, "that is not whole"), (2, "calls no tool")])
def test_an_answer_that_is_cut_before_its_call_is_whole_is_a_failure(limit, said, models):
    model = models("v13 tekken")
    bias = [] if limit == 1 else model.biased(f"{model.control['[THINK]']}{SURELY}")
    result = model.complete("--tool-choice", "required", "-n", limit, "--json", *bias, thinks=limit == 2)
    assert result.exit_code == Status.CUT_SHORT
    assert len(result.stderr.splitlines()) == 1 and said in result.stderr and "--max-tokens" in result.stderr
    assert json.loads(result.stdout)["tool_calls"] == []


def test_what_cannot_be_bound_is_refused_by_name_unless_nothing_is_called(models):
    tools = [*TOOLS, tool("odd", {"properties": {"a": {"contains": {"type": "null"}}}})]
    for choice in ((), ("--tool-choice", "required")):
        with pytest.raises(OptionError, match="calls of the tool odd cannot be bound"):
            models("v13 tekken").complete(*choice, tools=tools)
    assert models("v13 tekken").complete("--tool-choice", "none", "-n", "2", tools=tools).exit_code == 0


def test_a_choice_needs_tools_and_one_of_their_names(models):
    with pytest.raises(OptionError, match="--tool-choice is required, and no tools are offered; offer some"):
        invoke("complete", "-m", models("v3").path, "--tool-choice", "required", "a")
    with pytest.raises(
        OptionError, match="--tool-choice is sub; it must be one of auto, required, none, add, find_it-2, now"
    ):
        models("v3").complete("--tool-choice", "sub")


@pytest.mark.parametrize(
    ("value", "choice"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice()),
        ("none", ToolChoice("none")),
        ("now", ToolChoice("required", "now")),
        ({"type": "function", "function": {"name": "now"}}, ToolChoice("required", "now")),
        ({"type": "function", "function": {"name": "none"}}, ToolChoice("required", "none")),
    ],
)
def test_a_choice_is_a_mode_a_name_or_what_openai_has(value, choice):
    assert tool_choice_of(value, [*TOOLS, tool("none")], "x") == choice


@pytest.mark.parametrize("value", ["", "sub", 1, [], {}, {"function": "now"}, {"function": {"name": "sub"}}])
def test_any_other_choice_is_refused(value):
    with pytest.raises(OptionError, match=r"x is .*; it must be one of auto, required, none, add"):
        tool_choice_of(value, TOOLS, "x")


# Batch


def request(**line):
    (task,) = read_tasks(json.dumps({"prompt": "2+3?", "tools": TOOLS, "temperature": 1.0, **line}).encode())
    return request_of(task, Defaults(AnswerKnobs()))


def answer(model, **line):
    opened, tokenizer = load(model.path)
    asked = request(**{"logit_bias": model.no_thought} | line)
    return batch.answer_of(asked, list(batch.begin(asked, Timeline(opened), tokenizer)), tokenizer)


def test_a_line_may_choose(models):
    model = models("v13 tekken")
    (made,) = answer(model, tool_choice={"type": "function", "function": {"name": "add"}}, max_tokens=3000)[
        "tool_calls"
    ]
    assert made["name"] == "add"
    call = model.control["[TOOL_CALLS]"]
    free = answer(model, tool_choice="none", logit_bias=[f"{call}{SURELY}"], max_tokens=20)
    assert free["tool_calls"] == [] and "error" not in free
    cut = answer(model, tool_choice="required", max_tokens=1)
    assert (cut["tool_calls"], cut["finish_reason"]) == ([], "length") and "not whole" in cut["error"]
    with pytest.raises(OptionError, match="tool_choice of the line is sub; it must be one of"):
        request(tool_choice="sub")
    with pytest.raises(OptionError, match="tool_choice of the line is required, and no tools are offered"):
        request(tool_choice="required", tools=[])
    assert "tool_choice" in OWN_KEYS


def test_text_before_a_call_is_free_and_so_is_a_prefill(models):
    model = models("v11 tekken")
    opened, tokenizer = load(model.path)
    begin = [*tokenizer.encode("I add."), model.control["[TOOL_CALLS]"]]
    scripted, sampler = Scripted(begin), Sampler(temperature=1, seed=0)

    def choose(logits, history):
        return scripted(logits, history) if scripted.ids else sampler(logits, history)

    asked = replace(request(max_tokens=3000), sampler=choose)
    found = batch.answer_of(asked, list(batch.begin(asked, Timeline(opened), tokenizer)), tokenizer)
    assert found["text"] == "I add." and {call["name"] for call in found["tool_calls"]} <= set(SCHEMAS)
    found = answer(model, tool_choice="add", prefill="I add.", max_tokens=3000)
    assert found["text"] == "I add." and found["tool_calls"][0]["name"] == "add"


def test_the_prompt_is_the_same_for_every_choice(models):
    _, tokenizer = load(models("v3").path)
    prompts = [Prompt(text="a", tools=TOOLS, tool_choice=ToolChoice(mode)) for mode in ("auto", "required", "none")]
    first, *others = (prompt.encode(tokenizer) for prompt in prompts)
    assert all(other == first for other in others)
