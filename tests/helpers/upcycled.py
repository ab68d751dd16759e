"""Makes a model with a single feed-forward into a Mixtral of equal experts: whichever are chosen, it is the same model.

python tests/helpers/upcycled.py SOURCE TARGET
"""

import json
import shutil
import sys
from pathlib import Path

import mlx.core as mx

N_EXPERTS, N_USED = 4, 2
MIXTURE = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "sliding_window": None}
COUNTS = {"num_local_experts": N_EXPERTS, "num_experts_per_tok": N_USED}
RULES = ("quantization", "quantization_config")


def upcycle(source: Path, target: Path) -> Path:
    """Write the MLX folder `source`, of one safetensors file, as a mixture with a random router."""
    config = json.loads((source / "config.json").read_text()) | MIXTURE | COUNTS
    config |= {key: {_name(path): rule for path, rule in config[key].items()} for key in RULES if key in config}
    weights, routers = {}, mx.random.key(0)
    for name, weight in mx.load(str(source / "model.safetensors")).items():
        weights[_name(name)] = mx.stack([weight] * N_EXPERTS) if ".mlp." in name else weight
        if name.endswith(".mlp.gate_proj.weight"):
            routers, key = mx.random.split(routers)
            router = mx.random.normal((N_EXPERTS, config["hidden_size"]), key=key).astype(mx.float16)
            weights[name.replace(".mlp.gate_proj.", ".block_sparse_moe.gate.")] = router
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("model.safetensors*"))
    (target / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(target / "model.safetensors"), weights)
    return target


def _name(name: str) -> str:
    return name.replace(".mlp.", ".block_sparse_moe.switch_mlp.")


if __name__ == "__main__":
    upcycle(*map(Path, sys.argv[1:]))
