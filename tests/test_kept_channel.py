"""What every client of the tests holds is what docs/howto/resume.md says (`KeptChannel`)."""

import pytest

from fixtures.kept_channel import KeptChannel, keep

SUBSCRIBED = {"message": "Subscribed to PostgreSQL", "status": "ok"}


class Client:
    """A channel, and what counted: a list for each position."""

    def __init__(self, *, keeps_positions: bool = True) -> None:
        self.counted: list[list[str]] = []
        self.channel = KeptChannel(self.counted.append, keeps_positions=keeps_positions)

    def told(self, *frames: str) -> list[str | None]:
        """Take changes ("a"), positions ("@1"), and resyncs ("!2"); return what the latter asked.

        `SUBSCRIBED` is "+".
        """
        asked: list[str | None] = []
        for frame in frames:
            match frame[0], frame[1:]:
                case "@", _:
                    position = {"message": "position", "position": frame}
                    assert self.channel.receive_system(position) is None
                case "!", at:
                    resync = {"message": "resync", "reason": "truncated", "position": f"@{at}"}
                    asked.append(self.channel.receive_system(resync))
                case "+", _:
                    asked.append(self.channel.receive_system(SUBSCRIBED))
                case _:
                    self.channel.receive_change(frame)
        return asked


def joined() -> Client:
    client = Client()
    assert client.told("+") == ["subscribed"]
    client.channel.loaded()
    return client


def test_changes_count_when_the_position_behind_them_is_told() -> None:
    client = joined()
    client.told("a", "b")
    assert (client.counted, client.channel.position) == ([], None)
    client.told("@1", "c", "@2", "@3", "d")
    assert (client.counted, client.channel.position) == ([["a", "b"], ["c"], []], "@3")


def test_what_was_cut_off_is_dropped_and_no_rows_are_loaded_at_a_position() -> None:
    client = joined()
    client.told("a", "@1", "b")
    client.channel.drop_waiting()
    assert client.told("+", "b", "c", "@2") == [None]
    assert client.counted == [["a"], ["b", "c"]]


def test_who_joins_again_on_one_connection_drops_it_as_well() -> None:
    client = joined()
    client.told("@1", "b", "+", "b", "@2")
    assert client.counted == [[], ["b"]]


def test_what_comes_before_a_resync_is_dropped_and_what_comes_while_it_loads_waits() -> None:
    client = joined()
    assert client.told("@1", "a", "!4", "b", "@5", "c") == ["truncated"]
    assert (client.counted, client.channel.position) == ([[]], "@1")
    client.channel.loaded()
    assert (client.counted, client.channel.position) == ([[], ["b"]], "@5")
    assert client.told("!6") == ["truncated"]
    client.channel.loaded()
    assert (client.counted, client.channel.position) == ([[], ["b"]], "@6")


def test_a_cut_while_it_loads_leaves_it_where_it_was() -> None:
    client = joined()
    client.told("@1", "!4", "a", "@5")
    client.channel.drop_waiting()
    client.channel.loaded()
    assert (client.counted, client.channel.position) == ([[]], "@1")


def test_without_positions_a_change_counts_at_once_and_every_join_loads() -> None:
    client = Client(keeps_positions=False)
    assert client.told("a", "+", "b") == ["subscribed"]
    assert client.counted == [["a"]]
    client.channel.loaded()
    client.told("c")
    assert client.counted == [["a"], ["b"], ["c"]]
    assert client.told("+") == ["subscribed"]
    resync = {"message": "resync: truncated", "status": "error"}
    assert client.channel.receive_system(resync) == "truncated"


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        ({"type": "INSERT", "record": {"id": 2}}, {1: {"id": 1, "v": 1}, 2: {"id": 2}}),
        ({"type": "UPDATE", "record": {"id": 1}, "old_record": {"id": 1}}, {1: {"id": 1}}),
        ({"type": "UPDATE", "record": {"id": 3}, "old_record": {"id": 1}}, {3: {"id": 3}}),
        ({"type": "DELETE", "old_record": {"id": 1}}, {}),
        ({"type": "DELETE", "record": {}, "old_record": {"id": 2}}, {1: {"id": 1, "v": 1}}),
    ],
)
def test_changes_are_applied_by_key_as_they_come(
    change: dict[str, object], rows: dict[int, object]
) -> None:
    kept: dict[int, dict[str, object]] = {1: {"id": 1, "v": 1}}
    keep(kept, change)
    assert kept == rows
