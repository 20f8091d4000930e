"""Fuzz one target, guided by coverage; see the arguments of libFuzzer.

Usage: ``python tests/fuzz/harness.py TARGET [-runs=N] [-max_total_time=S] [CORPUS FOLDER]``
"""

import sys
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

with atheris.instrument_imports(include=["heliograph.core"]):
    from targets import TARGETS

arguments = [argument for argument in sys.argv if argument not in TARGETS]
(name,) = [argument for argument in sys.argv if argument in TARGETS]


def run(data: bytes) -> None:
    TARGETS[name].run(data)


atheris.Setup(arguments, run)
atheris.Fuzz()
