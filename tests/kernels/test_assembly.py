"""What the compiler made of the inner loops: GCC 12 once copied the sums of dot products to other registers and back in
every step, 24 copies for 12 products, which took up to a third of the time."""

import re
import shutil
import subprocess

import pytest
from helpers.native import SETS

from mistral_mlx.kernels import native

LINE = re.compile(r"^\s*([0-9a-f]+):\s+(.*)$")
JUMP = re.compile(r"^j\w+\s+([0-9a-f]+)")
DOT = re.compile(r"^(?:\{\w+\} )?vpdp(?:busd|wssd)\s")
COPY = re.compile(r"^vmov(?:dqa|dqu|aps|ups)\w*\s+%[yz]mm\d+,%[yz]mm\d+$")
LONGEST = 200  # instructions of an inner loop

pytestmark = [
    pytest.mark.skipif(not native.built, reason="no native kernels are built"),
    pytest.mark.skipif("avx2" not in SETS, reason="not an x86 CPU"),
    pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed"),
]


def inner_loops(file):
    """Yield the instructions of each loop that holds no other jump."""
    command = ["objdump", "-d", "--no-show-raw-insn", file]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [(int(m[1], 16), m[2].strip()) for m in map(LINE.match, text.splitlines()) if m]
    place = {address: i for i, (address, _) in enumerate(lines)}
    for end, (_, instruction) in enumerate(lines):
        jump = JUMP.match(instruction)
        start = place.get(int(jump[1], 16)) if jump else None
        if start is not None and 0 < end - start < LONGEST:
            body = [text for _, text in lines[start:end]]
            if not any(map(JUMP.match, body)):
                yield body


def test_sums_of_dot_products_are_not_copied():
    n_loops = 0
    for body in inner_loops(native.ext.__file__):
        n_dots, n_copies = (sum(bool(kind.match(text)) for text in body) for kind in (DOT, COPY))
        if n_dots >= 4:
            n_loops += 1
            assert n_copies < n_dots, body
    assert n_loops > 20
