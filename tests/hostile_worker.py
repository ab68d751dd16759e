"""Runs the program on hostile folders, one after the other in this process, and writes down all it did.

    python tests/hostile_worker.py FOLDER PART PARTS

An audit hook sees every file that Python opens, lists, writes or runs, and every process and socket; the libraries
written in C are given bytes, or paths that were checked. Each run gets a copy of a good folder. Results are lines of
JSON on stdout.
"""

import contextlib
import faulthandler
import json
import os
import re
import resource
import shutil
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import mlx.core as mx
import typer
from conftest import tiny_config, tiny_weights, write_folder
from convert_sources import with_tokenizer, write_native
from hostile import tiny_tekken
from hostile_cases import CASES
from tiny_folder import write_tiny_folder
from tokenizer_files import CHATML, byte_level_json

from mistral_mlx import saved_session
from mistral_mlx.args import ModelArgs
from mistral_mlx.cli import app
from mistral_mlx.convert import convert
from mistral_mlx.loading import load
from mistral_mlx.session import Session

COMMANDS = {
    "convert": ["convert", "{folder}", "{target}", "--group-size", "32", "--quiet"],
    "info": ["info", "{folder}"],
    "complete": ["complete", "-m", "{folder}", "--max-tokens", "2", "--temperature", "0", "--quiet", "Hello"],
    "export": ["export", "{folder}", "{target}.gguf", "--quiet"],
    "eval": ["eval", "-m", "{folder}", "--text", "{home}/text", "--context", "32", "--quiet"],
    "chat": ["chat", "-m", "{folder}", "--resume", "s", "--quiet"],
}
BASES = {
    "plain": ("convert", "info", "complete"),
    "sharded": ("convert", "info", "complete"),
    "json": ("convert", "info", "complete"),
    "packed": ("info", "complete", "export", "eval"),
    "native": ("convert",),
    "tekken": ("convert", "info", "complete"),
    "gguf": ("convert",),
    "session": ("chat",),
}
ADDRESS_SPACE = 2 << 30  # more than there was before the first case: chats leave the stacks of their threads

ROOT = Path(__file__).resolve().parent.parent
OURS = [str(ROOT), sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), "/proc/", "/sys/", "/dev/null"]
OURS += [os.path.realpath(place) for place in OURS]
FILES = {"open", "os.listdir", "os.scandir", "os.truncate", "shutil.copyfile", "glob.glob"}
NEVER = re.compile(
    r"subprocess|os\.(system|exec|fork|posix_spawn|spawn)|socket|urllib|pty|pickle|ctypes\.(dlopen|dlsym)"
)
seen: list[str] | None = None  # what happened that must not; None while nothing is watched
own: list[str] = []  # beginnings of the paths that a run may touch


def watch(event: str, args: tuple[object, ...]) -> None:
    """Note what a run has no business to do."""
    if seen is None:
        return
    if NEVER.match(event):
        seen.append(f"{event} {args!r:.200}")
    elif event in FILES and isinstance(args[0], str | bytes | os.PathLike):
        place = os.path.abspath(os.fsdecode(args[0]))
        if not place.startswith((*own, *OURS)) and place != os.path.dirname(own[0]):
            seen.append(f"{event} {place}")
    elif event in ("exec", "compile"):
        name = getattr(args[0], "co_filename", args[1] if event == "compile" else "")
        if isinstance(name, str) and name.startswith(tuple(own)):
            seen.append(f"{event} {name}")


def write_bases(place: Path) -> None:
    """Write the good folders that the cases are copies of."""
    plain = write_tiny_folder(place / "plain" / "model")
    (plain / "generation_config.json").write_text('{"eos_token_id": 2}')
    (plain / "tokenizer_config.json").write_text('{"add_bos_token": true}')
    sharded = place / "sharded" / "model"
    shutil.copytree(plain, sharded)
    weights = dict(mx.load(str(sharded / "model.safetensors")).items())
    (sharded / "model.safetensors").unlink()
    names = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(weights)}
    for file in sorted(set(names.values())):
        mx.save_safetensors(str(sharded / file), {name: weights[name] for name in weights if names[name] == file})
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (place / "native").mkdir()
    write_native(place / "native" / "model", shards=2)
    (place / "packed").mkdir()
    convert(plain, place / "packed" / "model", group_size=32)
    config = tiny_config(vocab_size=600)
    settings = {"eos_token": "<|im_end|>", "chat_template": CHATML}
    tokenizer = {"tokenizer.json": json.loads(byte_level_json()), "tokenizer_config.json": settings}
    write_folder(place / "json" / "model", config, tiny_weights(ModelArgs.from_config(config)), files=tokenizer)
    for name in ("special_tokens_map.json", "added_tokens.json"):
        (place / "json" / "model" / name).write_text("{}")
    config = tiny_config(vocab_size=278)
    write_folder(place / "tekken" / "model", config, tiny_weights(ModelArgs.from_config(config)))
    (place / "tekken" / "model" / "tekken.json").write_text(json.dumps(tiny_tekken()))
    (place / "gguf" / "model").mkdir(parents=True)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"etaoinshr"]
    kinds = [2, 3, 3, *[6] * 256, *[1] * 10]
    with_tokenizer(place / "gguf" / "model" / "model.gguf", "llama", tokens, kinds, scores=[0.0] * len(tokens))
    shutil.copytree(place / "plain", place / "session")
    session = Session(*load(place / "session" / "model"))
    for _ in session.ask("Hello", max_tokens=3):
        pass
    (place / "session" / "home" / "sessions").mkdir(parents=True)
    saved_session.save(session, place / "session" / "home" / "sessions" / "s.json", {"model": "tiny", "top_k": 3})


def run(command: str, place: Path) -> dict[str, object]:
    """Run a command on the folder in `place` and return what came of it."""
    global seen
    places = {"folder": place / "model", "target": place / "target", "home": place / "home"}
    words = [word.format(**places) for word in COMMANDS[command]]
    os.environ["MISTRAL_MLX_HOME"] = str(place / "home")
    own[:] = [str(place / name) for name in ("model", "home", "target", ".target")]
    before, modules = listing(place), set(sys.modules)
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest memory so far
    sys.argv = ["mistral-mlx", *words]
    with captured() as output:
        seen, started = [], time.process_time()  # others may want the processor, too
        status = exit_status()
        seconds, happened, seen = time.process_time() - started, seen, None
    files = [str(getattr(sys.modules[name], "__file__", None)) for name in set(sys.modules) - modules]
    after = listing(place)
    return {
        "status": status,
        "stdout": output[0],
        "stderr": output[1],
        "happened": [*happened, *(f"import {file}" for file in files if file.startswith(tuple(own)))],
        "seconds": round(seconds, 3),
        "memory": int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024,
        "changed": sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)),
    }


def exit_status() -> object:
    """Run the program as its own process would; what is not caught there is a traceback."""
    try:
        app.run()
    except SystemExit as error:
        return error.code or 0
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def captured():
    """Give a list of what is written to stdout and stderr, by libraries too; stdin is empty."""
    output: list[str] = []
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull) as nothing:
        saved = [os.dup(number) for number in range(3)]
        for number, file in enumerate((nothing, out, err)):
            os.dup2(file.fileno(), number)
        try:
            yield output
        finally:
            sys.stdout.flush()
            for number, descriptor in enumerate(saved):
                os.dup2(descriptor, number)
                os.close(descriptor)
            for file in (out, err):
                file.seek(0)
                output.append(file.read().decode("utf-8", "backslashreplace"))


def listing(place: Path) -> dict[str, object]:
    """Return size and time of everything below `place`."""
    found = {}
    for folder, folders, files in os.walk(place):
        for name in (*folders, *files):
            status = os.lstat(os.path.join(folder, name))
            is_folder = name in folders
            found[os.path.relpath(os.path.join(folder, name), place)] = is_folder or (
                status.st_size,
                status.st_mtime_ns,
            )
    return found


def main() -> None:
    work, part, parts = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    faulthandler.enable()
    mx.set_default_device(mx.cpu)
    app.app = typer.main.get_command(app.app)  # built once; half of the time goes into that
    os.environ["MISTRAL_MLX_DEVICE"] = "cpu"
    write_bases(work / "bases")
    sys.addaudithook(watch)
    report = open(os.dup(1), "w", buffering=1)  # noqa: SIM115  (stays open)
    good = [(f"good {base}", base, None) for base in BASES]  # also imports what is imported late
    for number, case in enumerate([*good, *CASES]):
        if number >= len(good) and number % parts != part:
            continue
        if number == len(good):
            limit_memory()
        name, base, change = case[:3]
        for command in BASES[base]:
            place = work / f"{number}-{command}"
            shutil.copytree(work / "bases" / base, place)
            (place / "home").mkdir(exist_ok=True)
            (place / "home" / "said-slow-kernels").touch()
            (place / "home" / "text").write_text("The capital of a country is where its government sits. " * 9)
            if change is not None:
                change(place / "model")
            faulthandler.dump_traceback_later(60, exit=True)
            result = run(command, place)
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps({"case": name, "command": command, **result}), file=report)
            shutil.rmtree(place)


def limit_memory() -> None:
    used = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, used + ADDRESS_SPACE))


if __name__ == "__main__":
    main()
