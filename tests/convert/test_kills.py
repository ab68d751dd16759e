"""Killed and concurrent conversions: a target is complete or absent, never a mixture.

A process that has imported everything forks a child for each conversion, which costs a hundredth of a new process. It
has computed nothing, so there is no thread yet that a fork would lose.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.convert_sources import write_folder

from mistral_mlx.convert import convert
from mistral_mlx.errors import ConversionError

N_KILLS = 50
FORKS = """
import json, os, random, signal, sys, time
from pathlib import Path
from mistral_mlx.convert import convert
from mistral_mlx.errors import MistralMLXError

source, place, count = sys.argv[1:]
os.fsync = lambda descriptor: None  # is for power cuts; here it would only take time
target = os.path.join(place, "target")
convert(source, target, dry_run=True)  # imports what is imported late

def begun(bits, overwrite, rest=0.0):
    pid = os.fork()
    if pid:
        return pid
    try:
        convert(source, target, bits=bits, overwrite=overwrite, progress=lambda *_: time.sleep(rest))
        os._exit(0)
    except MistralMLXError as error:
        os.write(1, (json.dumps({"error": str(error)}) + "\\n").encode())
        os._exit(3)
    except BaseException as error:
        os.write(1, (json.dumps({"error": repr(error)}) + "\\n").encode())
        os._exit(1)

def status(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def content(folder):
    return {p.name: p.read_bytes().hex() for p in Path(folder).iterdir()} if os.path.isdir(folder) else None

def report(**values):
    print(json.dumps(values), flush=True)
"""
KILLS = """
assert status(begun(4, False)) == 0
def timed():
    started = time.perf_counter()
    assert status(begun(4, True)) == 0
    return time.perf_counter() - started

whole, chance = min(timed() for _ in range(3)), random.Random(0)
for number in range(int(count)):
    overwrite = number % 2 == 1
    if not overwrite:
        for path in Path(target).iterdir(): path.unlink()
        Path(target).rmdir()
    pid = begun(8 if overwrite else 4, overwrite)
    time.sleep(chance.uniform(0, whole))
    os.kill(pid, signal.SIGKILL)
    killed = status(pid) == -9
    after = content(target)
    # the next run: of another process, to the same target
    again = status(begun(4, True))
    report(killed=killed, overwrite=overwrite,
            after=after, again=again, left=sorted(os.listdir(place)), then=content(target))
"""
PAIRS = """
chance = random.Random(0)
for number in range(int(count)):
    overwrite = number % 2 == 1
    if os.path.isdir(target) and not overwrite:
        for path in Path(target).iterdir(): path.unlink()
        Path(target).rmdir()
    first = begun(4, overwrite, chance.uniform(0, 0.002))
    second = begun(8, overwrite, chance.uniform(0, 0.002))
    statuses = [status(first), status(second)]
    report(overwrite=overwrite, statuses=statuses, left=sorted(os.listdir(place)), then=content(target))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("kills") / "source", shards=2)


@pytest.fixture(scope="module")
def whole(source: Path) -> dict[int, dict[str, str]]:
    """The content of the target by bits, from conversions nobody disturbed."""
    for bits in (4, 8):
        convert(source, source.parent / f"whole-{bits}", bits=bits)
    return {bits: content(source.parent / f"whole-{bits}") for bits in (4, 8)}


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_bytes().hex() for path in folder.iterdir()}


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    return {p.name: (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in folder.iterdir()}


def reports(script: str, source: Path, place: Path, count: int) -> list[dict[str, object]]:
    """Run a script of forks and return what it reports; errors of conversions are among it."""
    process = subprocess.run(
        [sys.executable, "-c", FORKS + script, source, place, str(count)], capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    return [json.loads(line) for line in process.stdout.splitlines()]


def test_kills_at_random_moments_leave_a_whole_target_or_none(
    tmp_path: Path, source: Path, whole: dict[int, dict[str, str]]
) -> None:
    before = fingerprint(source)
    found = reports(KILLS, source, tmp_path, N_KILLS)
    assert len(found) == N_KILLS
    assert sum(bool(r["killed"]) for r in found) > N_KILLS // 10  # the others were done already
    for r in found:
        # with --overwrite the old target is there, the new one, or none for the moment between two renames
        assert r["after"] in ((whole[4], whole[8], None) if r["overwrite"] else (whole[4], None))
        assert (r["again"], r["left"]) == (0, ["target"]) and r["then"] == whole[4]
    assert fingerprint(source) == before


def test_two_conversions_to_one_target_never_mix(
    tmp_path: Path, source: Path, whole: dict[int, dict[str, str]]
) -> None:
    found = reports(PAIRS, source, tmp_path, 10)
    pairs, errors = [r for r in found if "statuses" in r], [str(r["error"]) for r in found if "error" in r]
    assert len(pairs) == 10
    for r in pairs:
        assert r["left"] == ["target"] and r["then"] in (whole[4], whole[8])
        assert sorted(r["statuses"]) in ([0, 0], [0, 3])  # the other one says that it came too late
        assert r["overwrite"] or sorted(r["statuses"]) == [0, 3]
    assert all("exists" in error or "not empty" in error for error in errors)


def test_a_source_that_vanishes_meanwhile_leaves_nothing(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", shards=2)

    def progress(name: str, done: int, total: int) -> None:
        for path in source.glob("*.safetensors"):
            path.unlink()

    with pytest.raises(ConversionError, match=r"No such file or directory.* is as it was before"):
        convert(source, tmp_path / "target", progress=progress)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that everybody can reach; those of pytest are for their owner."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        yield Path(place)


def test_a_folder_that_is_read_only_is_said_before_any_work(shared: Path) -> None:
    source = write_folder(shared / "source")
    (shared / "place").mkdir(mode=0o555)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # root may write everywhere, so be nobody
        with contextlib.suppress(BaseException):
            if os.geteuid() == 0:
                os.setuid(65534)
            with pytest.raises(ConversionError) as raised:
                convert(source, shared / "place" / "target", progress=lambda *_: os._exit(1))
            os.write(writer, str(raised.value).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with open(reader) as file:
        assert "cannot be written to; name another target" in file.read()
