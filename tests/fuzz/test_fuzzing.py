"""Any bytes: a result or the decoder's own error. A short run in the suite, a long one as a soak.

A finding is printed with its bytes; run it again by
``python tests/fuzz/harness.py TARGET FILE``.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from targets import TARGETS

without_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not installed"
)

#: Inputs per target of the short run, a million together; what does more per input gets fewer.
RUNS = {
    "pgoutput": 250_000,
    "frames": 200_000,
    "stream": 40_000,
    "client_text": 80_000,
    "client_binary": 200_000,
    "websocket_messages": 150_000,
    "subscription_filter": 60_000,
    "token_json": 60_000,
}


def fuzz(name, folder, *arguments):
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(TARGETS[name].seeds):
        (corpus / str(number)).write_bytes(seed)
    harness = Path(__file__).with_name("harness.py")
    done = subprocess.run(
        [sys.executable, str(harness), name, *arguments, "-timeout=10", str(corpus)],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    report = done.stdout + done.stderr
    findings = [(path.name, path.read_bytes()) for path in folder.glob("*-*") if path.is_file()]
    assert done.returncode == 0, f"{findings}\n{report[-4000:]}"
    found = re.search(r"Done (\d+) runs", report)
    assert found is not None, report[-4000:]
    return int(found[1])


@pytest.mark.parametrize("name", TARGETS)
def test_a_seed_of_each_target_is_decoded(name):
    decoded = [TARGETS[name].run(seed) for seed in TARGETS[name].seeds]
    assert any(decoded)


@pytest.mark.needs_atheris
@without_atheris
@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_decoded_or_refused(name, tmp_path):
    arguments = (f"-runs={RUNS[name]}", "-seed=1", "-max_len=512")
    assert fuzz(name, tmp_path, *arguments) >= RUNS[name]


@pytest.mark.needs_atheris
@without_atheris
@pytest.mark.soak
@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_decoded_or_refused_for_long(name, tmp_path):
    runs = fuzz(name, tmp_path, "-max_total_time=600", "-max_len=4096")
    print(f"{name}: {runs} inputs")
