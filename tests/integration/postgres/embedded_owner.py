"""A process that owns an embedded PostgreSQL, for tests that kill or stop such processes.

Usage: embedded_owner.py DATA_DIR. Prints one line of JSON when PostgreSQL runs, then waits to be
asked to stop.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from heliograph.cli.stop_request import stop_on_signals
from heliograph.postgres.embedded import EmbeddedOptions, EmbeddedPostgres


async def main() -> int:
    with stop_on_signals() as stop:
        async with EmbeddedPostgres(EmbeddedOptions(data_dir=Path(sys.argv[1]))) as postgres:
            running = postgres.running
            ready = {
                "url": running.url.reveal(),
                "pid": running.pid,
                "was_adopted": running.was_adopted,
                "user_id": os.geteuid(),
            }
            print(json.dumps(ready), flush=True)
            await stop.wait()
    return stop.exit_code


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
