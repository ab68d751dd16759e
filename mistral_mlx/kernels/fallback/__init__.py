"""The NumPy and MLX versions of the native kernels, with the same results within rounding."""
