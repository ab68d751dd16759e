"""The process that runs mlx-lm: begun, followed and, whatever happens here, ended.

What mlx-lm does to a process stays in that one: it lowers the limit of open files, loads transformers, prints, and is
deaf to signals while it computes.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mistral_mlx.convert.rounding.learned import Learned
from mistral_mlx.errors import ConversionError, shown
from mistral_mlx.progress import Progress

COMMAND = (sys.executable, "-m", "mistral_mlx.convert.write.mlx_lm_child")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
PLAIN, PACKED, JOB, SAMPLES, LOG, CACHE = "plain", "packed", "job.json", "samples.npy", "log.txt", "cache"


def run_mlx_lm(learned: Learned, folder: Path, progress: Progress | None) -> Path:
    """Return the MLX folder that mlx-lm makes, below `folder`, of the plain one there.

    `progress` is called with what is being done, the parts of it that are done, and all there are.

    Raises ConversionError if mlx-lm fails, with the last line it wrote.
    """
    job = {"method": learned.method, "bits": learned.bits, "group_size": learned.group_size}
    (folder / JOB).write_text(json.dumps(job))
    np.save(folder / SAMPLES, np.array(learned.samples, np.int32))
    with (folder / LOG).open("w+b") as log:
        status = _run(folder, log, progress)
        log.seek(0)
        lines = log.read().decode("utf-8", "replace").split("\n")
    if status == -signal.SIGKILL:
        raise ConversionError(
            f"mlx-lm's {learned.method.upper()} was killed, perhaps because the memory did not suffice: "
            "it holds the whole model"
        )
    if status:
        said = next((line.strip() for line in reversed(lines) if line.strip()), f"status {status}")
        raise ConversionError(f"mlx-lm's {learned.method.upper()} failed ({shown(said, limit=200)})")
    return folder / PACKED


def _run(folder: Path, log: BinaryIO, progress: Progress | None) -> int:
    """Return the exit status of the child, as `subprocess` spells it."""
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path if path)
    environment = {**os.environ, **OFFLINE, "HF_HOME": str(folder / CACHE), "PYTHONPATH": paths}
    with subprocess.Popen(
        COMMAND,
        cwd=folder,  # which Python looks for modules in: it holds none
        env=environment,
        stdin=subprocess.PIPE,  # the child ends when this does, even if we are killed
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,  # Ctrl-C is ours alone
    ) as child:
        try:
            assert child.stdout is not None
            for line in child.stdout:
                done, total, name = line.decode().split(maxsplit=2)
                if progress:
                    progress(name.strip(), int(done), int(total))
            return child.wait()
        finally:
            child.kill()
