"""Cases of folders whose feed-forward is a mixture of experts."""

from hostile.case import ALL, ESCAPES, Case, config
from hostile.tensors import content, header, without

EXPERT, STACK = "model.layers.0.block_sparse_moe.experts.1.w1.weight", "model.layers.0.mlp.experts.gate_up_proj"
ROUTER = {"experts": "model.layers.0.block_sparse_moe.gate.weight", "fused": "model.layers.0.mlp.gate.weight"}
COUNT = "num_local_experts|expert|tensor"


def thousands(h: dict) -> None:
    """Name layers that the model does not have, with the experts of all together: no bytes, 4,000 tensors."""
    start = max(entry["data_offsets"][1] for key, entry in h.items() if key != "__metadata__")
    entry = {"dtype": "U8", "shape": [256, 2, 0], "data_offsets": [start, start]}
    h.update({f"model.layers.{i}.mlp.experts.gate_up_proj": entry for i in range(2, 4002)})


MIXTURE_CASES = [
    *(Case(f"{key} {value!r:.20} in {base}", base, config(**{key: value}), ALL, COUNT)
      for base in ("experts", "fused")
      for key, values in {
          "num_local_experts": (0, -1, 3, 5, 257, 1 << 63, 4.0, "4", True, [], ESCAPES),
          "num_experts_per_tok": (0, -1, 5, 2.5, True, {}, ESCAPES),
          "num_shared_experts": (1, 2), "num_hidden_layers": (1, 3, 1024),
      }.items() for value in values),
    *(Case(f"no router in {base}", base, without(name), ALL, "gate") for base, name in ROUTER.items()),
    *(Case(f"a router of {shape} in {base}", base, content(name, shape), ALL, "shape|implies")
      for base, name in ROUTER.items() for shape in ((3, 32), (4, 31), (4,), (4, 32, 1))),
    Case("an expert is missing", "experts", without(EXPERT), ALL, "expert"),
    *(Case(f"an expert of {shape}", "experts", content(EXPERT, shape), ALL, "shape|implies")
      for shape in ((64, 31), (32, 64), (64,), (4, 64, 32))),
    *(Case(f"an expert called {name!r:.30}", "experts", content(EXPERT.replace(".1.", f".{name}."), (64, 32)), ALL,
        "expert|unknown|does not use") for name in ("4", "01", "-1", "99999999999", "٣", ESCAPES)),
    *(Case(f"experts together of {shape}", "fused", content(STACK, shape), ALL, "shape|implies")
      for shape in ((4, 127, 32), (3, 128, 32), (5, 128, 32), (4, 128), (512, 32), (4, 2, 32))),
    Case("experts in integers", "fused", header(lambda h: h[STACK].update(dtype="I32")), ALL, "I32"),
    Case("experts of thousands of layers", "fused", header(thousands), ALL, "stored as|does not use"),
    Case("experts apart and together", "experts", content(STACK, (4, 128, 32)), ALL, "same expert|does not use"),
]  # fmt: skip
