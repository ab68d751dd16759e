"""What the program does not import, open or start."""

import json
import os
import subprocess
import sys

from helpers.cli import PROGRAM


def test_help_imports_neither_mlx_nor_a_tokenizer():
    for args in (["--help"], ["complete", "--help"], ["convert", "--help"], ["bench", "--help"]):
        load = PROGRAM[2].replace("; main()", "")
        code = f"import sys; sys.argv[1:] = {args!r}\n{load}\ntry: main()\nfinally: print(*sys.modules)"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        heavy = {"mlx", "transformers", "tokenizers", "sentencepiece", "numpy", "rich", "pydantic"}
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
    heavy = {"transformers", "torch", "huggingface_hub", "mlx_lm", "pydantic", "rich", "llguidance"}
    print("imported:", *sorted(heavy & {name.split(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def test_completing_needs_no_network_no_compiler_no_shared_folder_and_no_heavy_library(folder, tmp_path):
    (tmp_path / "tmp").mkdir(mode=0o500)
    env = {**os.environ, "PATH": "/nonexistent", "TMPDIR": str(tmp_path / "tmp")}
    options = "--max-tokens 8 --temperature 0.5 --top-p 0.9 --seed -0 --stop x --stop y"
    script = f"ulimit -n 256; exec {sys.executable} -c '{RESTRICTED}' complete -q -m {folder} {options} Hello"
    result = subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, timeout=60, env=env)
    assert (result.returncode, result.stderr) == (0, "imported:\n")
    assert list((tmp_path / "tmp").iterdir()) == []


COUNTING = """
import collections, json, pathlib, sys
opened = collections.Counter()
sys.addaudithook(lambda event, args: event == "open" and opened.update([pathlib.Path(str(args[0])).name]))
from mistral_mlx.cli.main import main
try:
    main()
finally:
    print(json.dumps(opened), file=sys.stderr)
"""


def test_completing_reads_each_file_of_the_model_once(folder):
    command = [sys.executable, "-c", COUNTING, "complete", "-q", "-m", str(folder), "--max-tokens", "2", "Hello"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    opened = json.loads(result.stderr)
    assert opened["config.json"] == opened["tokenizer.model"] == 1
    assert opened["model.safetensors"] == 3  # the length of the header, the header, and the weights


def test_the_end_of_the_program_looks_for_no_unused_cycles():
    code = f"import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 1000))\n{PROGRAM[2]}"
    for args, status in (["--help"], 0), (["complete", "-m", "./none", "x"], 3):
        result = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60)
        assert (result.returncode, result.stdout.splitlines()[-1]) == (status, "True")
