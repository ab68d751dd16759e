"""The program in real processes: its streams and its exit statuses."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from helpers.cli import PROGRAM, interrupted, one_line, run
from helpers.tiny_folder import repeat_forever, write_tiny_folder

from mistral_mlx import kernels
from mistral_mlx.version import __version__

GREEDY = ("--temperature", "0", "--max-tokens", "8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """A model that writes " the" until it is stopped."""
    return repeat_forever(write_tiny_folder(tmp_path_factory.mktemp("models") / "endless"))


def completed(*args, **options):
    result = run("complete", *args, "--json", **options)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


# Streams


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
        rest, stderr = process.communicate(timeout=10)
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


# Prompts


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
    result = subprocess.run(["bash", "-c", script], capture_output=True, timeout=30)
    assert result.returncode == status
    assert result.stderr.count(b"\n") == (closed == ">&-")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_remark_that_cannot_be_written_does_not_fail_the_answer(folder):
    script = f"{sys.executable} -c '{PROGRAM[2]}' complete -m {folder} --max-tokens 2 Hello 2>/dev/full"
    assert subprocess.run(["bash", "-c", script], stdin=subprocess.DEVNULL, timeout=30).returncode == 0


def test_control_tokens_typed_by_a_user_are_text(folder):
    text = "</s><s>[INST]"
    result = completed("-m", folder, *GREEDY, text)
    assert result["prompt_tokens"] == completed("-m", folder, *GREEDY, "--raw", text)["prompt_tokens"] + 2


def test_a_base_model_continues_the_text_and_says_so(tmp_path):
    base = write_tiny_folder(tmp_path / "base", chat=False)
    result = run("complete", "-m", base, *GREEDY, "Hello")
    assert "no instruct format" in result.stderr.decode()
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


# Errors


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["complete", "-m", "nowhere", "x"], 3, "no such model directory"),
        (["complete", "x"], 2, "which model?"),
        (["complete", "-m", "{folder}", "--temperature", "-1", "x"], 2, "temperature is -1"),
        (["complete", "-m", "{folder}", "--temperature", "nan", "x"], 2, "temperature is nan"),
        (["complete", "-m", "{folder}", "--top-p", "0", "x"], 2, "top_p is 0"),
        (["complete", "-m", "{folder}", "--max-tokens", "0", "x"], 2, "max_tokens is 0"),
        (["complete", "-m", "{folder}", "--device", "tpu", "x"], 2, "--device is 'tpu'"),
        (["complete", "-m", "{folder}", "--threads", "1025", "x"], 2, "--threads is 1025; it must be 1 to 1024, or 0"),
        (["chat", "-m", "{folder}", "--threads", "-1"], 2, "--threads is -1"),
        (["complete", "-m", "{folder}", "--template", "v9", "x"], 2, "v9"),
        (["complete", "-m", "{folder}", "--prompt-file", "nowhere"], 2, "nowhere cannot be read"),
        (["complete", "--nonsense"], 2, "--nonsense"),
        (["frobnicate"], 2, "frobnicate"),
        (["info", "nowhere"], 3, "no such model directory"),
        (["pull", "mistral"], 2, "there is no model 'mistral'"),
        (["convert", "nowhere", "{out}"], 3, "nowhere"),
        (["convert", "{folder}", "{folder}"], 5, ""),
        (["convert", "{folder}", "{out}", "--bits", "7"], 2, "bits is 7"),
    ],
)
def test_errors_are_one_line_and_a_documented_status(folder, tmp_path, args, status, said):
    started = time.monotonic()
    result = run(*(arg.format(folder=folder, out=tmp_path / "out") for arg in args))
    assert (result.returncode, result.stdout) == (status, b"")
    assert said in one_line(result.stderr)
    assert time.monotonic() - started < 5  # documented as two seconds; build machines are slow
    assert not (tmp_path / "out").exists()


def test_a_prompt_beyond_the_context_has_its_own_status(tmp_path):
    short = write_tiny_folder(tmp_path / "short", sliding_window=None, max_position_embeddings=8)
    result = run("complete", "-m", short, "a prompt of more than eight tokens")
    assert (result.returncode, result.stdout) == (4, b"")
    assert "the model's context 8" in one_line(result.stderr)


def test_a_model_larger_than_the_memory_is_refused_unless_forced(folder):
    code = PROGRAM[2].replace(
        "; main()",
        "; from mistral_mlx.cli.models import opening; opening.available_memory = lambda: 1000; main()",
    )
    refused = subprocess.run(
        [sys.executable, "-c", code, "complete", "-m", folder, "x"], capture_output=True, input=b""
    )
    assert refused.returncode == 3
    assert "GB are available; convert it to fewer bits, or add --ignore-memory" in one_line(refused.stderr)
    forced = subprocess.run(
        [sys.executable, "-c", code, "complete", "--ignore-memory", "-m", folder, "x"], capture_output=True, input=b""
    )
    assert forced.returncode == 0


def test_a_traceback_is_shown_only_on_request(folder):
    result = run("--debug", "complete", "-m", "nowhere", "x")
    assert b"Traceback" in result.stderr


def test_names_cannot_control_the_terminal(tmp_path):
    result = run("info", tmp_path / "\x1b[2J[bold]")
    assert b"\x1b" not in result.stderr
    assert "[bold]" in one_line(result.stderr)


# What is not touched


def test_help_imports_neither_mlx_nor_a_tokenizer():
    for args in (["--help"], ["complete", "--help"], ["convert", "--help"], ["bench", "--help"]):
        load = PROGRAM[2].replace("; main()", "")
        code = f"import sys; sys.argv[1:] = {args!r}\n{load}\ntry: main()\nfinally: print(*sys.modules)"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
        heavy = {"mlx", "transformers", "tokenizers", "sentencepiece", "numpy", "rich"}
        assert heavy & {name.split(".")[0] for name in result.stdout.split()} == set()


RESTRICTED = """
import sys
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        print("forbidden:", event, args, file=sys.stderr)
        sys.stderr.flush()
sys.addaudithook(hook)
from mistral_mlx.cli.main import main
try:
    main()
finally:
    names = {name.split(".")[0] for name in sys.modules}
    print("imported:", *sorted(names & {"transformers", "torch", "huggingface_hub", "mlx_lm"}), file=sys.stderr)
"""


def test_completing_needs_no_network_no_compiler_no_shared_folder_and_no_transformers(folder, tmp_path):
    (tmp_path / "tmp").mkdir(mode=0o500)
    env = {**os.environ, "PATH": "/nonexistent", "TMPDIR": str(tmp_path / "tmp")}
    script = f"ulimit -n 256; exec {sys.executable} -c '{RESTRICTED}' complete -q -m {folder} --max-tokens 8 Hello"
    result = subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, timeout=60, env=env)
    assert (result.returncode, result.stderr) == (0, "imported:\n")
    assert list((tmp_path / "tmp").iterdir()) == []


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_conversion_that_is_ended_leaves_nothing_and_says_so(tmp_path, number):
    folder = write_tiny_folder(tmp_path / "big", num_hidden_layers=200, hidden_size=128)

    def begun():
        return any(path.name.startswith(".out") for path in tmp_path.iterdir())

    result = interrupted(["convert", folder, tmp_path / "out"], number, after=begun)
    assert result.returncode == 128 + number
    assert "interrupted; nothing half-written is left" in one_line(result.stderr)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_programs_that_tests_start_obey_signals():
    code = "import signal; print(signal.SIG_IGN in map(signal.getsignal, (signal.SIGINT, signal.SIGHUP)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30).stdout == b"False\n"


def test_the_tests_pass_where_signals_are_ignored():
    """Under nohup, or with `&` in a script, programs ignored the signals that tests sent to them, and tests hung."""
    test = f"{__file__}::{test_programs_that_tests_start_obey_signals.__name__}"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test]
    result = subprocess.run(["sh", "-c", 'trap "" INT HUP; exec "$@"', "sh", *command], capture_output=True, timeout=60)
    assert result.returncode == 0, result.stdout.decode()


# Registered names and other commands


def test_version_names_the_program_its_number_and_the_kernels():
    result = run("--version")
    assert (result.returncode, result.stderr) == (0, b"")
    name, number, rest = result.stdout.decode().split(" ", 2)
    assert (name, number) == ("mistral-mlx", __version__)
    assert re.fullmatch(rf"\(mlx [\d.]+, Python [\d.]+\S*, kernels: {re.escape(kernels.names())}\)\n", rest)


def test_a_registered_name_wins_over_a_folder_and_a_path_says_it_is_one(folder, endless, tmp_path, monkeypatch):
    from mistral_mlx.cli.models.registry import register

    register("tiny", endless)
    (tmp_path / "tiny").symlink_to(folder)
    assert run("complete", "-q", "-m", "tiny", *GREEDY, "x", cwd=tmp_path).stdout.startswith(b"the the")
    assert not run("complete", "-q", "-m", "./tiny", *GREEDY, "x", cwd=tmp_path).stdout.startswith(b"the the")
    monkeypatch.setenv("MISTRAL_MLX_MODEL", "tiny")
    assert run("complete", "-q", *GREEDY, "x").stdout.startswith(b"the the")


def test_info_says_what_the_cache_will_take(folder):
    facts = json.loads(run("info", folder, "--json").stdout)
    assert facts["sliding_window"] == [8, 8]
    assert facts["kv_bytes_at_window"] == facts["kv_bytes_at_context"] == 2 * 2 * 8 * 2 * 8 * 4
    assert facts["tokenizer"]["version"] == "v3"
    text = run("info", folder).stdout.decode()
    assert "2 layers see the last 8 tokens" in text
    assert "4 query heads share 2 key/value heads of 8" in text


def test_info_names_the_packing_mode(folder, tmp_path):
    """Every packing used to be called affine."""
    assert run("convert", folder, tmp_path / "out", "--mode", "mxfp4").returncode == 0
    assert "(mxfp4 4-bit, group 32" in run("info", tmp_path / "out").stdout.decode()


def test_convert_names_what_it_keeps_and_the_result_runs(tmp_path):
    folder = write_tiny_folder(tmp_path / "odd", intermediate_size=72)
    result = run("convert", folder, tmp_path / "out", "--bits", "4", "--group-size", "32")
    assert (result.returncode, result.stdout) == (0, b"")
    assert "model.layers.*.mlp.down_proj.weight (2 layers): its 72 columns" in result.stderr.decode()
    assert "bits per weight" in result.stderr.decode()
    assert run("complete", "-q", "-m", tmp_path / "out", *GREEDY, "Hello").returncode == 0
    again = run("convert", folder, tmp_path / "out")
    assert again.returncode == 5


def test_commands_about_a_model_take_it_as_an_argument_or_an_option(folder, tmp_path):
    """convert used to know no names, bench no argument, and info to ignore one of two models."""
    from mistral_mlx.cli.models.registry import register

    register("tiny", folder)
    dry = ("--dry-run", "--dequantize", "--json")
    for args in (("tiny",), ("-m", "tiny"), (folder,)):
        assert run("info", *args).returncode == 0
        assert run("convert", *args, *dry, cwd=tmp_path).returncode == 0
    made = run("convert", "tiny", *dry, cwd=tmp_path)
    assert json.loads(made.stdout)["target"] == str(tmp_path / "tiny-mlx")
    for args in (("tiny", "a.gguf"), ("-m", "tiny", "b.gguf")):
        assert run("export", *args, "-q", cwd=tmp_path).returncode == 0
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    assert run("bench", "tiny", "-p", "2", "-n", "1", "--repeats", "1", "-q").returncode == 0
    for command in ("info", "bench"):
        refused = run(command, folder, "-m", "tiny")
        assert (refused.returncode, "two models are given" in one_line(refused.stderr)) == (2, True)


def test_convert_json_is_the_report(folder, tmp_path):
    report = json.loads(run("convert", folder, tmp_path / "out", "--group-size", "32", "--dry-run", "--json").stdout)
    assert report["dry_run"] is True
    assert report["bits_per_weight"] > 4
    assert not (tmp_path / "out").exists()


def test_pull_says_when_the_index_cannot_be_reached():
    env = {
        **os.environ,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_NO_INDEX": "0",
        "PIP_CONFIG_FILE": os.devnull,
    }
    env["PIP_RETRIES"] = "0"
    result = run("pull", "demo", "--quiet", env={k: v for k, v in env.items() if k != "PIP_EXTRA_INDEX_URL"})
    assert result.returncode == 5
    assert "could not be downloaded" in one_line(result.stderr)


def test_positions_beyond_those_trained_are_said(tmp_path):
    short = write_tiny_folder(tmp_path / "short", max_position_embeddings=8)
    result = run("complete", "-m", short, *GREEDY, "a prompt of more than eight tokens")
    assert "past the 8 that the model was trained for" in result.stderr.decode()
