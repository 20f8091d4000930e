"""The folder from which a restarted server knows how far it had read; nothing in it is changed."""

import os
from pathlib import Path
from typing import Final

from heliograph.cli.composition import STATE_FOLDER
from heliograph.cli.diagnosis.check import Check, CheckName, fail, ok, warn
from heliograph.config import Settings
from heliograph.server.continuity_file import ContinuityFile, continuity_path

_NAME: Final = CheckName.STATE_FOLDER
_SET_IT: Final = (
    "set HELIOGRAPH_STATE_DIR to a folder of the disk that outlives the server (in containers: of a"
    " volume)"
)


def judge_state_folder(settings: Settings) -> Check:
    """Tell whether clients can go on where they were after a restart of the server."""
    folder = Path(settings.state_dir or STATE_FOLDER)
    path = continuity_path(folder, settings.slot)
    if not path.exists():
        return _without_file(settings, folder)
    try:
        record = ContinuityFile.read(path)
    except OSError:
        return _not_writable(path)
    if not os.access(path, os.W_OK):
        return _not_writable(path)
    if record is None:
        return fail(
            _NAME,
            f"{path} is not what the server has written: after a restart clients load anew",
            "remove it, and look what else writes into that folder",
        )
    return ok(
        _NAME,
        f"{path} says how far slot {settings.slot} was read: after a restart clients go on where"
        " they were",
    )


def _without_file(settings: Settings, folder: Path) -> Check:
    if settings.state_dir is None:
        return warn(
            _NAME,
            f"HELIOGRAPH_STATE_DIR is not set, and {folder} is not here: the server keeps it where"
            " it is started, and clients load anew if that is another place each time",
            _SET_IT,
        )
    nearest = next(each for each in (folder, *folder.resolve().parents) if each.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return _not_writable(folder)
    return warn(
        _NAME,
        f"{folder} knows nothing of slot {settings.slot}: clients load anew after the next start",
        "nothing, if the server was never started with it; else keep that folder from start to"
        " start, and never put it back from a backup",
    )


def _not_writable(place: Path) -> Check:
    return fail(
        _NAME,
        f"{place} can not be written to by this account, so the server does not start with it, or"
        " clients load anew after each restart",
        _SET_IT + ", and let the account of the server write to it",
    )
