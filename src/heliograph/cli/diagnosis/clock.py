"""Whether the clocks agree: tokens are judged by this machine's, made by the issuer's."""

from dataclasses import dataclass
from typing import Final

from heliograph.cli.diagnosis.check import Check, CheckName, fail, ok, warn
from heliograph.limits import DOCTOR_CLOCK_SKEW_S_MAX, TOKEN_LEEWAY_S

_REMEDY: Final = (
    "let both machines keep time by NTP (timedatectl shows it); a token made on a machine that is"
    " ahead is not valid yet here, one is expired too early here if this machine is ahead"
)


@dataclass(frozen=True, slots=True)
class ClockReading:
    """What another clock said, and when it was asked by ours.

    Attributes:
        asked_unix_s: Our time before the question.
        answered_unix_s: Our time after the answer.
        told_unix_s: The other clock's time.
        resolution_s: The other clock tells times down to this: 1 for a Date header.
    """

    asked_unix_s: float
    answered_unix_s: float
    told_unix_s: float
    resolution_s: float = 0.0

    @property
    def ahead_s(self) -> float:
        """How far the other clock is ahead of ours at least; 0 if they may agree."""
        earliest, latest = self.told_unix_s, self.told_unix_s + self.resolution_s
        if earliest > self.answered_unix_s:
            return earliest - self.answered_unix_s
        if latest < self.asked_unix_s:
            return latest - self.asked_unix_s
        return 0.0


def judge_clock(name: CheckName, whose: str, reading: ClockReading) -> Check:
    """Judge one clock against this machine's.

    Args:
        name: ``clock-database`` or ``clock-server``.
        whose: Whose clock it is, for people.
        reading: What it said.
    """
    ahead_s = reading.ahead_s
    if abs(ahead_s) <= DOCTOR_CLOCK_SKEW_S_MAX:
        return ok(name, f"{whose} and this machine agree to within {DOCTOR_CLOCK_SKEW_S_MAX:g} s")
    direction = "ahead of" if ahead_s > 0 else "behind"
    text = f"{whose} is {abs(ahead_s):.1f} s {direction} this machine's clock"
    if abs(ahead_s) > TOKEN_LEEWAY_S:
        return fail(name, text, _REMEDY)
    return warn(name, text, _REMEDY)
