"""What is ordered and what is not: nothing to find out, but often taken for a fault."""

from heliograph.cli.diagnosis.check import Check, CheckName, ok


def explain_ordering() -> Check:
    """Say what may be relied on."""
    return ok(
        CheckName.EVENT_ORDERING,
        "within a channel changes come in commit order, whole transactions, each row once with its"
        " last values; between channels, sockets and users no order is promised: tables that must"
        " be seen in their common order belong into one channel",
    )
