"""The program as a shell sees it: its streams, its prompts and its remarks."""

import json
import os
import signal
import subprocess
import sys

import pytest
from helpers.cli import GREEDY, PROGRAM, one_line, run
from helpers.tiny_folder import write_tiny_folder


def completed(*args, **options):
    result = run("complete", *args, "--json", **options)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_stdout_is_the_text_and_one_line_feed_and_stderr_is_empty_when_quiet(endless):
    result = run("complete", "-m", endless, *GREEDY, "--quiet", "Hello")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"the" + b" the" * 7 + b"\n", b"")


def test_raw_continues_the_text_with_its_space(endless):
    result = run("complete", "-m", endless, *GREEDY, "--quiet", "--raw", "Hello")
    assert result.stdout == b" the" * 8 + b"\n"


def test_stopping_at_a_limit_is_said(endless):
    result = run("complete", "-m", endless, *GREEDY, "Hello")
    assert "stopped at the limit of 8 tokens" in one_line(result.stderr)


def test_text_arrives_while_it_is_written(endless):
    with subprocess.Popen(
        [*PROGRAM, "complete", "-m", endless, "--max-tokens", "1000000", "Hello"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.read(11) == b"the the the"
        process.send_signal(signal.SIGINT)
        rest, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert rest == b" the" * (len(rest) // 4) + b"\n"
    assert "interrupted" in one_line(stderr)


def test_a_reader_that_leaves_ends_the_program_quietly(endless):
    shell = f"{sys.executable} -c '{PROGRAM[2]}' complete -m {endless} --max-tokens 1000000 Hello"
    script = f"{shell} | head -c 10; status=${{PIPESTATUS[0]}}; echo; echo $status"
    result = subprocess.run(["bash", "-c", script], capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    assert (result.stdout, result.stderr) == (b"the the th\n141\n", b"")


def test_json_is_one_object_that_says_what_repeats_it(folder):
    first = completed("-m", folder, "--max-tokens", 12, "Hello")
    again = completed("-m", folder, "--max-tokens", 12, "--seed", first["seed"], "Hello")
    assert first["text"] == again["text"]
    assert (first["finish_reason"] in ("stop", "length"), first["model"]) == (True, str(folder))
    keys = {"prompt_tokens", "cached_tokens", "prompt_tps", "generation_tps", "ttft_s", "start_ttft_s"}
    assert keys | {"peak_memory_gb", "temperature"} <= first.keys()


def test_statistics_go_to_stderr(folder):
    result = run("complete", "-m", folder, *GREEDY, "--seed", "7", "--stats", "Hello")
    assert "seed 7" in result.stderr.decode()
    assert b"seed" not in result.stdout


def test_output_does_not_depend_on_the_locale(folder):
    plain = run("complete", "-m", folder, *GREEDY, "Hello").stdout
    assert run("complete", "-m", folder, *GREEDY, "Hello", env={**os.environ, "LC_ALL": "C"}).stdout == plain


def test_standard_input_the_file_and_the_argument_are_joined_in_this_order(folder, tmp_path):
    (tmp_path / "prompt").write_text("the window\n")
    joined = completed("-m", folder, *GREEDY, "--prompt-file", tmp_path / "prompt", "the king", input=b"the ring\n")
    alone = completed("-m", folder, *GREEDY, "the ring\n\nthe window\n\nthe king", input=None)
    assert (joined["text"], joined["prompt_tokens"]) == (alone["text"], alone["prompt_tokens"])


def test_backslashes_in_a_prompt_are_left_alone(folder):
    assert completed("-m", folder, *GREEDY, r"a\nb")["text"] == completed("-m", folder, *GREEDY, input=rb"a\nb")["text"]
    assert (
        completed("-m", folder, *GREEDY, r"a\nb")["prompt_tokens"]
        != completed("-m", folder, *GREEDY, "a\nb")["prompt_tokens"]
    )


@pytest.mark.parametrize("data", [b"", b"\n"])
def test_no_prompt_is_a_usage_error(folder, data):
    result = run("complete", "-m", folder, input=data)
    assert (result.returncode, result.stdout) == (2, b"")
    assert "there is no prompt" in one_line(result.stderr)


def test_a_prompt_that_is_not_utf8_is_a_usage_error(folder):
    result = run("complete", "-m", folder, input=b"abc\xff")
    assert result.returncode == 2
    assert "standard input is not UTF-8 text: byte 0xff at 3" in one_line(result.stderr)


@pytest.mark.parametrize(("closed", "status"), [("<&-", 0), (">&-", 5), ("2>&-", 0), ("<&- >&- 2>&-", 5)])
def test_streams_may_be_closed(folder, closed, status):
    """A closed standard input used to make MLX fail to open the weights: they got file descriptor 0."""
    script = f"{sys.executable} -c '{PROGRAM[2]}' complete -q -m {folder} --max-tokens 2 Hello {closed}"
    result = subprocess.run(["bash", "-c", script], capture_output=True, timeout=60)
    assert result.returncode == status
    assert result.stderr.count(b"\n") == (closed == ">&-")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "command", ["", "help", "--help", "chat --help", "--version", "completion bash", "config path"]
)
def test_output_that_cannot_be_written_is_an_error_in_the_same_words(command):
    """Pages of help used to say no more than: No space left on device."""
    script = f"{sys.executable} -c '{PROGRAM[2]}' {command} >/dev/full"
    result = subprocess.run(["sh", "-c", script], capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    said = "mistral-mlx: error: standard output cannot be written: No space left on device"
    assert (result.returncode, one_line(result.stderr)) == (5, said)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_remark_that_cannot_be_written_does_not_fail_the_answer(folder):
    script = f"{sys.executable} -c '{PROGRAM[2]}' complete -m {folder} --max-tokens 2 Hello 2>/dev/full"
    assert subprocess.run(["bash", "-c", script], stdin=subprocess.DEVNULL, timeout=60).returncode == 0


def test_control_tokens_typed_by_a_user_are_text(folder):
    text = "</s><s>[INST]"
    result = completed("-m", folder, *GREEDY, text)
    assert result["prompt_tokens"] == completed("-m", folder, *GREEDY, "--raw", text)["prompt_tokens"] + 2


def test_a_base_model_continues_the_text_and_says_so(tmp_path):
    base = write_tiny_folder(tmp_path / "base", chat=False)
    result = run("complete", "-m", base, *GREEDY, "Hello")
    assert "no chat format" in result.stderr.decode()
    assert result.stdout == run("complete", "-m", base, *GREEDY, "--raw", "Hello").stdout
    refused = run("chat", "-m", base)
    assert (refused.returncode, "cannot chat" in one_line(refused.stderr)) == (3, True)


def test_missing_kernels_are_said_once(folder, home):
    (home / "said-slow-kernels").unlink()
    opening = "from mistral_mlx import kernels; kernels.note = lambda: 'slow, because'; "
    command = [
        sys.executable,
        "-c",
        opening + PROGRAM[2],
        "complete",
        "-m",
        folder,
        "--temperature",
        "0",
        "-n",
        "3",
        "x",
    ]
    first, second = (subprocess.run(command, capture_output=True, input=b"").stderr for _ in range(2))
    assert (b"slow, because" in first, b"slow, because" in second) == (True, False)


@pytest.mark.parametrize("args", [("complete", "x"), ("chat", "--no-history")])
def test_threads_that_have_no_effect_are_said_in_one_line(folder, args):
    without = "from mistral_mlx.kernels import native; native.available, native.missing = False, 'no compiler'; "
    command = [sys.executable, "-c", without + PROGRAM[2], *args, "-m", folder, *GREEDY, "--threads", "2"]
    lines = subprocess.run(command, capture_output=True, input=b"").stderr.decode().splitlines()
    remark = "mistral-mlx: --threads has no effect here; the kernels are numpy (no native kernels: no compiler)"
    assert lines.count(remark) == 1


def test_positions_beyond_those_trained_are_said(tmp_path):
    short = write_tiny_folder(tmp_path / "short", max_position_embeddings=8)
    result = run("complete", "-m", short, *GREEDY, "a prompt of more than eight tokens")
    assert "past the 8 that the model was trained for" in result.stderr.decode()
