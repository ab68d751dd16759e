"""Prompt templates of `complete`, and the command `templates`."""

import pytest
from helpers.invoke import invoke

from mistral_mlx.cli.answers import complete
from mistral_mlx.errors import OptionError

pytestmark = pytest.mark.usefixtures("_ready_stdin")


@pytest.fixture
def template(home):
    def write(text, name="mine"):
        (home / "templates").mkdir(exist_ok=True)
        (home / "templates" / f"{name}.toml").write_text(text)

    return write


def filled(*args, input=""):
    """Return the job that `complete` makes of its arguments."""
    jobs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(complete, "run", lambda job, *opened: jobs.append(job))
        patch.setattr("mistral_mlx.cli.models.opening.open_model", lambda *args, **options: (None, None))
        patch.setattr("mistral_mlx.cli.models.registry.resolve", lambda model: None)
        invoke("complete", "-m", "any", *args, input=input)
    return jobs[0]


def test_a_template_takes_input_variables_and_settings(template):
    template(
        'system = "In {words} words."\nprompt = "Say: {input} {{kept}} {\\"json\\": 1}\\n"\nprefill = "So, "\n'
        'temperature = 0\nmax_tokens = 9\nstop = ["."]\nextract = true\n[vars]\nwords = "ten"\n'
    )
    job = filled("-t", "mine", "--var", "words=two", "{words}", input="piped\n")
    assert (job.prompt.text, job.prompt.system) == ('Say: piped\n\n{words} {kept} {"json": 1}', "In two words.")
    assert (job.prompt.prefill, job.max_tokens, job.stop, job.extract) == ("So,", 9, ["."], True)
    assert job.samplers[0].options.temperature == 0


def test_what_is_typed_wins_over_the_template(template):
    template('system = "a"\ntemperature = 0.5\nmax_tokens = 9')
    job = filled("-t", "mine", "--temperature", "0.7", "--system", "b", "x")
    assert (job.samplers[0].options.temperature, job.max_tokens, job.prompt.system) == (0.7, 9, "b")


@pytest.mark.parametrize(
    ("text", "args", "said"),
    [
        ("", ["-t", "other", "x"], r"no template other \(there are: mine\)"),
        ("", ["-t", "../mine", "x"], "use letters, digits"),
        ("prompt = ", ["-t", "mine", "x"], "is not TOML"),
        ("promt = 'x'", ["-t", "mine", "x"], "sets promt, which is none of description, prompt, .*vars.*top_p"),
        ("prompt = 1", ["-t", "mine", "x"], "prompt of the template mine is 1"),
        ("temperature = 'hot'", ["-t", "mine", "x"], "the template mine: temperature is hot; it must be a number"),
        ("top_k = true", ["-t", "mine", "x"], "the template mine: top_k is True; it must be a whole number"),
        ("[vars]\na = 1", ["-t", "mine", "x"], "must have a text"),
        ("prompt = '{a} {input}'", ["-t", "mine", "x"], "needs a value for a: add --var a="),
        ("prompt = '{a} {input}'", ["-t", "mine", "--var", "b=1", "x"], r"has no variable b \(it has: a\)"),
        ("prompt = 'fixed'", ["-t", "mine", "x"], "has no place for a prompt"),
        ("prompt = '{input}'", ["-t", "mine", "--var", "input=1", "x"], "--var is input=1"),
        ("prompt = 'x {input}'", ["-t", "mine"], "needs input"),
    ],
)
def test_templates_that_cannot_be_used_say_why(template, text, args, said):
    template(text)
    with pytest.raises(OptionError, match=said):
        filled(*args)


def test_templates_are_listed_shown_and_edited(template, home, monkeypatch, tmp_path):
    template('description = "for tests"\nprompt = "{input}"\n')
    assert invoke("templates", "list").output == "mine\tfor tests\n"
    assert invoke("templates").output == invoke("templates", "list").output
    assert invoke("templates", "show", "mine").output == 'description = "for tests"\nprompt = "{input}"\n'
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "sed -i s/English/French/")
    said = invoke("templates", "edit", "new").stderr
    assert said.endswith('new.toml is saved; use it as: mistral-mlx complete -t new "the input"\n')
    assert filled("-t", "new", "x").prompt.system == "Answer in French."
    monkeypatch.setenv("EDITOR", "false")
    with pytest.raises(OptionError, match="the editor false ended with status 1"):
        invoke("templates", "edit", "another")
    assert not (home / "templates" / "another.toml").exists()
    monkeypatch.delenv("EDITOR")
    with pytest.raises(OptionError, match="no terminal for an editor"):
        invoke("templates", "edit", "mine")


def test_a_template_without_a_description_is_a_name_alone_in_the_list(template):
    """A tab used to follow it."""
    template("prompt = 'x'")
    assert invoke("templates", "list").output == "mine\n"


def test_an_example_that_is_not_changed_is_not_kept(template, home, monkeypatch):
    """It used to stay as a template that answers in English."""
    monkeypatch.setenv("VISUAL", "true")
    assert "there is no template new" in invoke("templates", "edit", "new").stderr
    assert not (home / "templates" / "new.toml").exists()
    template("prompt = 'x'")
    assert "is saved" in invoke("templates", "edit", "mine").stderr
    assert (home / "templates" / "mine.toml").read_text() == "prompt = 'x'"


def test_a_template_can_be_removed(template, home):
    template("prompt = ")  # also one that cannot be used
    assert invoke("templates", "rm", "mine").stderr.endswith("mine.toml is removed\n")
    assert list((home / "templates").iterdir()) == []
    with pytest.raises(OptionError, match="there is no template mine"):
        invoke("templates", "rm", "mine")
    with pytest.raises(OptionError, match="use letters, digits"):
        invoke("templates", "rm", "../config")
