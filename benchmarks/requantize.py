"""Rewrites a GGUF file with all its matrices as Q4_0, in NumPy."""

from pathlib import Path

import gguf

OWN_KEYS = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture")  # the writer sets them


def write_q4_0(source: Path, target: Path) -> None:
    """Write the file: vectors in float32, matrices rounded to Q4_0 from what `source` unpacks to."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name not in OWN_KEYS:
            kind, *inner = field.types
            writer.add_key_value(name, field.contents(), kind, *inner[-1:])
    for tensor in reader.tensors:
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if weights.ndim == 1:
            writer.add_tensor(tensor.name, weights)
        else:
            kind = gguf.GGMLQuantizationType.Q4_0
            writer.add_tensor(tensor.name, gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
