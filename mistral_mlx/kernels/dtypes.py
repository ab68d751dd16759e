"""The dtypes of plain weights by their names in safetensors files."""

import mlx.core as mx

MLX_DTYPES = {"F32": mx.float32, "BF16": mx.bfloat16, "F16": mx.float16}
DTYPE_NAMES = {dtype: name for name, dtype in MLX_DTYPES.items()}
