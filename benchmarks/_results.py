"""Where results go, and the machine they belong to."""

import json
import os
import platform
from pathlib import Path


def machine(postgres_major=None):
    """Return what a figure means nothing without; no PostgreSQL where none took part."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found = {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }
    return found if postgres_major is None else {**found, "postgres": postgres_major}


def write_results(name, content):
    folder = Path(__file__).with_name("results")
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
