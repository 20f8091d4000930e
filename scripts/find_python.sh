#!/bin/sh
# Prints the Python that shall make the environment: `python3` if it is new enough, otherwise the
# newest of python3.14 … python3.11. Prints nothing if there is none.
for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
        echo "$candidate"
        exit 0
    fi
done
