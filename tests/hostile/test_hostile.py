"""No model folder, GGUF file or saved session makes the program do anything unasked.

cases.py is the table; worker.py runs each row through the real commands and watches them.
"""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hostile.bases import BASES, write_bases
from hostile.case import put, sparse, template
from hostile.cases import CASES
from hostile.texts import LOOP
from hostile.worker import peak_nbytes

PARTS = 2
SECONDS, MEMORY = 4.0, 500_000_000  # the slowest case takes 1 s on a Zen 4 and 2.4 s on a slower Zen 3
REFUSED = {"convert": (3, 5), "export": (3, 5), "chat": (2, 3)}  # docs/cli.md
REFUSED |= {"carry": (3, 5), "merge": (3, 5), "calibrate": (2, 3, 5)}
REFUSED |= {"info": (3,), "complete": (3,), "eval": (3,)}
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")
TESTS = Path(__file__).parents[1]
# What wait4 says of memory is never less than the parent had when it forked.
PROGRAM = """
import atexit, pathlib, sys
report = pathlib.Path(sys.argv.pop(1))
atexit.register(lambda: report.write_text(pathlib.Path("/proc/self/status").read_text()))
from mistral_mlx.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each command did with each case."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    work = tmp_path_factory.mktemp("hostile")
    workers = []
    for part in range(PARTS):
        words = [sys.executable, "-m", "hostile.worker", work / str(part), str(part), str(PARTS)]
        with open(work / f"{part}.jsonl", "w") as report, open(work / f"{part}.stderr", "w") as stderr:
            workers.append(subprocess.Popen(words, env=environment, stdout=report, stderr=stderr))
    statuses = [worker.wait(timeout=170) for worker in workers]
    found = {}
    for part in range(PARTS):
        for result in map(json.loads, (work / f"{part}.jsonl").read_text().splitlines()):
            found[result["case"], result["command"]] = result
    said = [(work / f"{part}.stderr").read_text() for part in range(PARTS)]
    assert statuses == [0] * PARTS, (list(found)[-1:], *said)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hostile_input_is_refused_or_has_no_effect(results, case):
    for command in BASES[case.base]:
        result = results[case.name, command]
        check_behaviour(result)
        if command in case.refused_by.split():
            check_refusal(result, command, case.said)
        else:
            assert result["status"] == 0, result


def check_behaviour(result):
    """Whatever the outcome: nothing foreign opened, run or imported, quick, small, and inert on a terminal."""
    assert result["happened"] == []
    assert (result["seconds"] < SECONDS, result["memory"] < MEMORY) == (True, True), result
    assert not CONTROL.search(result["stderr"])


def check_refusal(result, command, said):
    """A documented status, one line on stderr that says what is wrong, and nothing written anywhere."""
    assert result["status"] in REFUSED[command], result
    assert (len(result["stderr"].splitlines()), result["stdout"], result["changed"]) == (1, "", []), result
    assert result["stderr"].startswith("mistral-mlx: error: ") and re.search(said, result["stderr"]), result
    assert "this is a bug" not in result["stderr"]


def test_the_names_of_cases_differ():
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("base", BASES)
def test_the_folders_that_cases_are_made_from_are_good(results, base):
    for command in BASES[base]:
        result = results[f"good {base}", command]
        check_behaviour(result)
        assert result["status"] == 0, result


# Once more from outside, as processes of their own: the time and memory are those of the whole program.


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    place = tmp_path_factory.mktemp("bases")
    write_bases(place)
    return place


@pytest.mark.parametrize(
    ("base", "change", "words"),
    [
        ("plain", sparse("model.safetensors", 200 << 20, struct.pack("<Q", 100 << 20)), ["info", "{}"]),
        ("plain", put("config.json", '{"a": [' + "[]," * 5_000_000 + "[]]}"), ["convert", "{}", "{}-out"]),
        ("plain", put("config.json", '{"a": [' + "{}," * 1_000_000 + "1]}"), ["convert", "{}", "{}-out"]),
        ("json", template(LOOP), ["complete", "-m", "{}", "Hello"]),
    ],
    ids=["giant header", "giant list", "long list", "endless template"],
)
def test_refusals_are_quick_and_small_as_processes_too(bases, tmp_path, base, change, words):
    folder = tmp_path / "model"
    shutil.copytree(bases / base / "model", folder)
    change(folder)
    started = time.perf_counter()
    with open(tmp_path / "stderr", "w+b") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, tmp_path / "status", *(word.format(folder) for word in words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    said = (tmp_path / "stderr").read_text()
    assert (process.returncode, len(said.splitlines())) == (3, 1), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "status", "stderr"]
    assert peak_nbytes((tmp_path / "status").read_text()) < MEMORY
    assert usage.ru_utime + usage.ru_stime < 2 * SECONDS, time.perf_counter() - started  # to start takes the first
