"""Where the compiled extension looks for MLX's library: beside itself, so that a wheel works on any machine."""

import struct
import sys
from pathlib import Path

import pytest

from mistral_mlx.kernels import native

pytestmark = [
    pytest.mark.skipif(not native.built, reason="no native kernels are built"),
    pytest.mark.skipif(sys.platform != "linux", reason="not an ELF file"),
]

LOAD, DYNAMIC = 1, 2  # segments
NEEDED, STRINGS, RPATH, RUNPATH = 1, 5, 15, 29  # entries of the dynamic segment


def dynamic_texts(file, tag):
    """Return the texts of the entries `tag` of a 64-bit little-endian ELF file, as `readelf -d` shows them."""
    data = Path(file).read_bytes()
    (table,), (size, count) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<HH", data, 54)
    segments = [struct.unpack_from("<IIQQQQ", data, table + i * size) for i in range(count)]
    ((_, _, start, _, _, length),) = (segment for segment in segments if segment[0] == DYNAMIC)
    entries = list(struct.iter_unpack("<QQ", data[start : start + length]))
    (address,) = (value for key, value in entries if key == STRINGS)
    (strings,) = (s[2] + address - s[3] for s in segments if s[0] == LOAD and s[3] <= address < s[3] + s[5])
    places = [strings + value for key, value in entries if key == tag]
    return [data[place : data.index(b"\0", place)].decode() for place in places]


def test_mlx_is_looked_for_beside_the_package_and_nowhere_else():
    folders = [*dynamic_texts(native.ext.__file__, RPATH), *dynamic_texts(native.ext.__file__, RUNPATH)]
    assert folders == ["$ORIGIN/../../mlx/lib"]


def test_mlx_is_not_part_of_the_extension():
    assert "libmlx.so" in dynamic_texts(native.ext.__file__, NEEDED)
