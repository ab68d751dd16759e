"""Runs the program with variables of the environment."""

import os

from helpers import cli


def run(*args, **env):
    return cli.run(*args, input=None, text=True, env={**os.environ, **env})
