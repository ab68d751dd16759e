"""Options of sampling, the pages of help, and completion in a shell."""

import re
from functools import partial

import pytest
import typer
from helpers.environment import run
from helpers.invoke import invoke

from mistral_mlx.cli.models.registry import register
from mistral_mlx.cli.options.answer import from_plain
from mistral_mlx.cli.options.command import Configurable
from mistral_mlx.cli.options.shared import PANELS
from mistral_mlx.errors import OptionError
from mistral_mlx.sampling.knobs import knobs
from mistral_mlx.sampling.options import SamplingOptions


def test_options_are_read_as_users_write_them_and_spelled_again():
    plain = {"logit_bias": ["5+1.5", "7-inf", "8-2"], "dry_sequence_breaker": ["a", "b"], "temperature": 1}
    options = SamplingOptions(**from_plain(SamplingOptions, plain))
    assert options.logit_bias == {5: 1.5, 7: -float("inf"), 8: -2}
    assert options.dry_sequence_breakers == ("a", "b")
    spelled = {key: option.to_plain(getattr(options, option.name)) for key, option in knobs(SamplingOptions).items()}
    assert {key: spelled[key] for key in plain} == plain
    assert SamplingOptions(**from_plain(SamplingOptions, spelled)) == options
    none = from_plain(SamplingOptions, {"dry_sequence_breaker": ["none"], "logit_bias": None})
    assert none == {"dry_sequence_breakers": (), "logit_bias": None}
    assert SamplingOptions().dry_sequence_breakers == ("\n", ":", '"', "*")


@pytest.mark.parametrize("bad", ["5", "+1", "x+1", "5+", "5+x", "5*2", "-5+1"])
def test_a_logit_bias_is_an_id_and_a_signed_number(bad):
    with pytest.raises(OptionError, match="logit_bias is"):
        from_plain(SamplingOptions, {"logit_bias": [bad]})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": -1}, "temperature is -1; it must be a number of at least 0"),
        ({"temperature": "hot"}, "temperature is hot; it must be a number of at least 0"),
        ({"top_p": 0}, "top_p is 0; it must be a number above 0 and at most 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0; it must be a number above 0"),
        ({"min_p": 2}, "min_p is 2; it must be a number from 0 to 1"),
        ({"top_k": 1.5}, "top_k is 1.5; it must be a whole number of at least 0"),
        ({"presence_penalty": float("inf")}, "presence_penalty is inf; it must be a finite number"),
        ({"seed": 2**63}, f"seed is {2**63}; it must be a whole number from 0 to {2**63 - 1}"),
    ],
)
def test_all_ranges_are_told_in_one_form(options, said):
    with pytest.raises(OptionError) as refused:
        SamplingOptions(**options)
    assert str(refused.value) == said


@pytest.mark.parametrize("value", [None, "", "7", "-07", "1.5", "-1.50", "1e3", " 7", "7.0", "x", "nan", "9" * 30])
def test_a_value_that_is_taken_past_typer_is_what_typer_makes_of_it(program, value):
    command = program.commands["complete"]
    ctx = command.make_context("complete", ["x"], resilient_parsing=True)
    for parameter in command.get_params(ctx):
        given = [value] if parameter.multiple and value is not None else value
        ours, theirs = parameter.process_value, partial(type(parameter).process_value, parameter)
        if parameter.name not in ("model", "help"):
            assert spelled(ours, ctx, given) == spelled(theirs, ctx, given), parameter.name


def spelled(process, ctx, value):
    try:
        found = process(ctx, value)
    except typer.BadParameter as error:
        return error.format_message()
    return repr(list(found) if isinstance(found, list | tuple) else found)


def test_every_option_but_the_main_ones_has_a_section_of_the_help(program):
    """Options that were renamed used to fall out of their section."""
    main = {"help", "model", "max_tokens", "resume", "last", "on_overflow", "save", "history", "chat", "n_prompt"}
    main |= {"n_gen", "depth", "repeats", "revision", "include", "exclude", "discover"}
    for command in (of for of in program.commands.values() if isinstance(of, Configurable)):
        for option in command.options:
            assert option.name in main or option.parameter.rich_help_panel in PANELS, option.name


def test_no_page_of_help_is_wider_than_a_terminal_and_no_summary_is_cut(program):
    """Summaries used to end in dots, and examples to be up to 99 columns wide."""
    pages = [(name,) for name in program.commands]
    pages += [(name, sub) for name, of in program.commands.items() for sub in getattr(of, "commands", ())]
    for page in ((), *pages):
        lines = invoke(*page, "--help").output.splitlines()
        assert [line for line in lines if len(line) > 80] == [], page
        assert "..." not in "".join(lines[1:]) and "[[" not in lines[0], page
        assert not re.search(r"<\w+>  |[{}]", "".join(lines)), page  # typer's notations
    text = invoke("--help").output
    for name, command in program.commands.items():
        assert f"\n  {name:10}  {command.get_short_help_str(62)}\n" in text, name


def test_help_begins_with_the_usual_options():
    """There were 45 options of sampling before --json, and only --model and --max-tokens on top."""
    first = invoke("complete", "--help").output.partition("\nOptions:\n")[2].partition("\n\n")[0]
    flags = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", first, re.MULTILINE)
    assert flags == [
        *("--model", "--max-tokens", "--system", "--file", "--temperature", "--seed", "--schema", "--extract"),
        *("--continue", "--stats", "--json", "--quiet", "--help"),
    ]
    titles = re.findall(r"^\w[\w ]+:$", invoke("complete", "--help").output, re.MULTILINE)
    assert titles[1:] == ["Options:", "Prompt:", "Form of the answer:", "Sampling:", "Output:", "Machine:", "Examples:"]
    titles = re.findall(r"^\w[\w ]+:$", invoke("convert", "--help").output, re.MULTILINE)
    assert titles[1:4] == ["Options:", "Weights:", "Examples:"]


def test_help_has_sections_examples_and_no_configured_values(config):
    config.write_text("top_k = 77\n")
    text = run("complete", "--help").stdout
    assert [title in text for title in ("\nSampling:\n", "\nOutput:\n", "\nExamples:\n  mistral-mlx complete")] == [
        True
    ] * 3
    assert "MISTRAL_MLX_<OPTION>" in text
    assert "77" not in text
    assert text.index("Sampling:") < text.index("--dry-base") < text.index("Output:")


def test_a_shell_completes_commands_options_and_names(home, tmp_path):
    register("mine", tmp_path)

    def completed(*words):
        return run(
            _MISTRAL_MLX_COMPLETE="complete_bash",
            COMP_WORDS=" ".join(("mistral-mlx", *words)),
            COMP_CWORD=str(len(words)),
        ).stdout.split()

    assert "models" in completed("mo")
    assert "--xtc-threshold" in completed("complete", "--xtc")
    (home / "sessions").mkdir()
    (home / "sessions" / "monday.json").touch()
    (home / "templates").mkdir()
    (home / "templates" / "haiku.toml").touch()
    for words in (("complete", "-m"), ("info",), ("convert",), ("export",), ("bench",), ("eval", "--against")):
        assert completed(*words, "") == ["mine"], words
    assert completed("models", "remove", "") == completed("models", "rename", "") == ["mine"]
    for words in (("chat", "--resume"), ("sessions", "show"), ("sessions", "rename"), ("sessions", "rm")):
        assert completed(*words, "") == ["monday"], words
    assert completed("chat", "") == ["mine"]
    assert completed("info", "./") == []  # the shell then offers files
    assert completed("complete", "-t", "h") == completed("templates", "rm", "h") == ["haiku"]
    assert completed("completion", "z") == ["zsh"]
    assert "_MISTRAL_MLX_COMPLETE=complete_bash" in run("completion", "bash").stdout
    assert run("completion", "tcsh").returncode == 2
