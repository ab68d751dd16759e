"""Runs the program with variables of the environment."""

import os
import subprocess

from helpers.cli import PROGRAM


def run(*args, **env):
    return subprocess.run(
        [*PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=60, stdin=-3, env={**os.environ, **env}
    )
