"""Whole numbers of a few bits: from one in each byte to a stream of bits and back, low bits first."""

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


def pack(codes: Bytes, bits: int) -> Bytes:
    """Return codes of `bits` bits end to end: [rows, columns] -> [rows, columns * bits / 8]."""
    if bits == 8:
        return np.ascontiguousarray(codes)
    if 8 % bits:
        single = np.unpackbits(codes[..., None], axis=-1, bitorder="little", count=bits)
        return np.packbits(single.reshape(codes.shape[0], -1), axis=-1, bitorder="little")
    per_byte = 8 // bits
    packed = codes[:, ::per_byte].copy()
    for i in range(1, per_byte):
        packed |= codes[:, i::per_byte] << np.uint8(bits * i)
    return packed


def unpack(raw: Bytes, bits: int) -> Bytes:
    """Return the codes in rows of bytes: [rows, bytes] -> [rows, bytes * 8 / bits]."""
    if bits == 8:
        return raw
    if 8 % bits:
        single = unpack_bits(raw).reshape(raw.shape[0], -1, bits)
        return np.packbits(single, axis=-1, bitorder="little")[..., 0]
    mask = np.uint8((1 << bits) - 1)
    codes = np.stack([raw >> np.uint8(shift) & mask for shift in range(0, 8, bits)], axis=-1)
    return codes.reshape(len(raw), -1)


def unpack_bits(raw: Bytes) -> Bytes:
    """Return every bit as a number: [..., bytes] -> [..., bytes, 8]."""
    bits: Bytes = np.unpackbits(raw[..., None], axis=-1, bitorder="little")
    return bits
