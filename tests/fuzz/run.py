"""Gives randomly damaged files to the readers of untrusted data, and prints the findings.

    python tests/fuzz/run.py --cases 100000 [--seed N] [--reader NAME]
    python tests/fuzz/run.py --reader NAME --seed N --only CASE      shows the traceback of one case

`--cases` are those of all readers together. Each case follows from the seed, the reader's name and its number. A
finding is an exception the reader does not promise, more than 2 s of processor time, 300 MB more memory, a word of a
library on stderr, or the end of the process.
"""

import argparse
import mmap
import os
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # this working tree, whatever is installed

SECONDS, MEMORY = 2.0, 300 << 20
HANGS = 15.0  # seconds on the clock after which a case is given up; other programs may want the processor, too
ADDRESS_SPACE = 2 << 30  # beyond what is there when a reader is made
ACCEPTED = "accepted:"
SHOWN = 20  # findings of a kind that are printed


def random_of(seed: int, name: str, case: int) -> Random:
    return Random(f"{seed}/{name}/{case}")


def findings(name: str, seed: int, cases: Iterable[int], place: Path, at: mmap.mmap | None = None) -> Iterator[str]:
    """Run cases of the reader `name` and yield what should not have happened; the number of each is noted in `at`."""
    from fuzz.readers import READERS

    reader = READERS[name](place)
    accepted = 0
    peak, said = _peak(), _said()
    for case in cases:
        if at is not None:
            at[:8] = struct.pack("<q", case)
        started = time.process_time()
        try:
            reader(random_of(seed, name, case))
            accepted += 1
        except reader.expected:
            pass
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            where = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno}"
            yield f"case {case}: {what}: {' '.join(str(error).split())[:150]}"
        if (seconds := time.process_time() - started) > SECONDS:
            yield f"case {case}: {seconds:.1f} s"
        if (now := _peak()) > peak + MEMORY:
            yield f"case {case}: {(now - peak) >> 20} MB more"
        if (words := _said()) > said:
            yield f"case {case}: {words - said} bytes on stderr"
        peak, said = max(peak, now), words
    yield f"{ACCEPTED} {accepted}"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _said() -> int:
    """Return how much was written to stderr, if that is a file."""
    return os.fstat(2).st_size


def work(name: str, seed: int, cases: range, note: Path) -> None:
    """Run in a process of its own: findings are lines on stdout."""
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    with note.open("r+b") as file, mmap.mmap(file.fileno(), 8) as at, tempfile.TemporaryDirectory() as place:
        from fuzz import readers as fuzz_readers  # noqa: F401  # its imports count as there before

        if sys.platform == "linux":
            size = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
            resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_SPACE, size + ADDRESS_SPACE))
        for line in findings(name, seed, cases, Path(place), at):
            print(line, flush=True)


def watched(name: str, seed: int, n_cases: int) -> list[str]:
    """Run `n_cases` in processes of their own, a new one behind each case that ends or hangs one."""
    found: list[str] = []
    first = 0
    with tempfile.TemporaryDirectory() as folder:
        note, out = Path(folder, "note"), Path(folder, "out")
        while first < n_cases:
            note.write_bytes(struct.pack("<q", first))
            words = [__file__, "--work", str(note), "--reader", name, "--seed", str(seed)]
            words += ["--first", str(first), "--cases", str(n_cases)]
            with out.open("wb") as stdout, Path(folder, "err").open("wb") as stderr:
                process = subprocess.Popen([sys.executable, *words], stdout=stdout, stderr=stderr)
                hung = _wait(process, note)
            found += out.read_text("utf-8", "replace").splitlines()
            if process.returncode == 0:
                break
            case = struct.unpack("<q", note.read_bytes())[0]
            words = Path(folder, "err").read_text("utf-8", "replace").strip().splitlines()[-1:]
            found.append(f"case {case}: " + ("hangs" if hung else f"ended with {process.returncode} {words}"))
            first = case + 1
    return found


def _wait(process: "subprocess.Popen[bytes]", note: Path) -> bool:
    """Wait for a process; end it and return True if it stays with one case for too long."""
    case, since = b"", time.monotonic()
    while process.poll() is None:
        time.sleep(0.1)
        if (now := note.read_bytes()) != case:
            case, since = now, time.monotonic()
        elif time.monotonic() - since > HANGS:
            process.kill()
            process.wait()
            return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader")
    parser.add_argument("--only", type=int, metavar="CASE")
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        return work(given.reader, given.seed, range(given.first, given.cases), given.work)
    from fuzz.readers import READERS

    if given.only is not None:
        with tempfile.TemporaryDirectory() as place:
            return READERS[given.reader](Path(place))(random_of(given.seed, given.reader, given.only))
    n_found = 0
    names = [given.reader] if given.reader else list(READERS)
    n_cases = given.cases // len(names)
    for name in names:
        started = time.perf_counter()
        found = watched(name, given.seed, n_cases)
        seconds = time.perf_counter() - started
        accepted = sum(int(line.split()[1]) for line in found if line.startswith(ACCEPTED))
        found = [line for line in found if not line.startswith(ACCEPTED)]
        print(
            f"{name:16} {n_cases:8} cases {accepted:8} accepted {len(found):6} findings {seconds:8.1f} s "
            f"{n_cases / seconds:8.0f} cases/s"
        )
        kinds = Counter()
        for line in found:
            kind = re.sub(r"\d+", "", line)[:60]
            kinds[kind] += 1
            if kinds[kind] <= SHOWN // 10 and len(kinds) <= SHOWN:
                print(f"    {line}", flush=True)
        n_found += len(found)
    sys.exit(1 if n_found else 0)


if __name__ == "__main__":
    main()
