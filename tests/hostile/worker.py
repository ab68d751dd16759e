"""Runs the program on hostile folders, one after the other, and records all its actions.

    PYTHONPATH=tests python -m hostile.worker FOLDER PART PARTS

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
from hostile.bases import BASES, write_bases
from hostile.cases import CASES

from mistral_mlx.cli import app

COMMANDS = {
    "convert": ["convert", "{folder}", "{target}", "--group-size", "32", "--quiet"],
    "carry": ["convert", "{folder}", "{target}", "--quiet"],
    "info": ["info", "{folder}"],
    "complete": ["complete", "-m", "{folder}", "--max-tokens", "2", "--temperature", "0", "--quiet", "Hello"],
    "export": ["export", "{folder}", "{target}.gguf", "--quiet"],
    "eval": ["eval", "-m", "{folder}", "--text", "{home}/text", "--context", "32", "--quiet"],
    "chat": ["chat", "-m", "{folder}", "--resume", "s", "--quiet"],
    "merge": ["convert", "{base}", "{target}", "--adapter", "{folder}", "--quiet"],
    "calibrate": ["convert", "{folder}", "{target}", "--group-size", "32", "--calibrate", "{home}/text", "--quiet"],
}
ADDRESS_SPACE = 2 << 30  # more than there was before the first case: chats leave the stacks of their threads

ROOT = Path(__file__).resolve().parents[2]
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


def run(command: str, place: Path) -> dict[str, object]:
    """Run a command on the folder in `place` and return what came of it."""
    global seen
    places = {name: place / name for name in ("target", "home", "base")} | {"folder": place / "model"}
    words = [word.format(**places) for word in COMMANDS[command]]
    os.environ["MISTRAL_MLX_HOME"] = str(place / "home")
    own[:] = [str(place / name) for name in ("model", "home", "base", "tmp", "target", ".target")]
    tempfile.tempdir = str(place / "tmp")
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
        "memory": peak_nbytes(Path("/proc/self/status").read_text()),
        "changed": sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)),
    }


def peak_nbytes(status: str) -> int:
    """Return the most memory that the process was given which has this /proc/self/status."""
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024


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
            (place / "tmp").mkdir()
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
