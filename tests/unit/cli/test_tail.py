"""The command `heliograph tail` as its user meets it: output, exit codes, signals."""

import asyncio
import contextlib
import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from heliograph.cli import tail
from heliograph.cli.tail import JsonSink, LineSink, register
from heliograph.cli.tail_conversation import TailRequest
from heliograph.cli.terminal import Terminal

PROGRAM = """
import typer
from heliograph.cli.main import run
from heliograph.cli.tail import register
app = typer.Typer()
app.callback()(lambda: None)
register(app)
run(app)
"""
TOPIC = "realtime:heliograph-tail"
CHANGE = {
    "type": "UPDATE",
    "schema": "public",
    "table": "orders",
    "commit_timestamp": "2026-11-10T14:03:22.123Z",
    "record": {"id": 7, "note": "\x1b[2Jnew", "status": "paid"},
    "old_record": {"id": 7, "note": "old", "status": "paid"},
}
LINE = ' UPDATE id=7  note: old → "\\u001b[2Jnew"'


def application() -> typer.Typer:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    return app


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tail.TailOptions]:
    """What the command line was understood as; nothing is connected to."""
    options: list[tail.TailOptions] = []
    monkeypatch.setattr(tail, "run_tail", lambda asked: options.append(asked) or 0)
    return options


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        (["orders"], TailRequest("public", "orders")),
        (["shop.orders"], TailRequest("shop", "orders")),
        (['"a.b"."c""d"'], TailRequest("a.b", 'c"d')),
        (["*"], TailRequest("*", "*")),
        (["public.*"], TailRequest("public", "*")),
        (["orders", "--event", "delete"], TailRequest("public", "orders", "DELETE")),
        (["orders", "--filter", "a=eq.1"], TailRequest("public", "orders", "*", "a=eq.1")),
        (["t", "--select", "a, b"], TailRequest("public", "t", columns=("a", "b"))),
    ],
)
def test_the_command_line_says_what_is_asked_for(asked, arguments, request_):
    result = CliRunner().invoke(application(), ["tail", *arguments])
    assert result.exit_code == 0, result.output
    assert [options.request for options in asked] == [request_]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [""],
        ["a.b.c"],
        ["a."],
        ['"open'],
        ["orders", "--event", "TRUNCATE"],
        ["orders", "--select", "a,,b"],
        ["orders", "--select", ""],
        ["orders", "--unknown"],
    ],
)
def test_wrong_usage_is_exit_code_2(asked, arguments):
    assert CliRunner().invoke(application(), ["tail", *arguments]).exit_code == 2
    assert asked == []


class Running:
    """The program in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def end(self) -> tuple[int, str]:
        assert self.process.stderr is not None
        async with asyncio.timeout(20):
            errors = (await self.process.stderr.read()).decode()
            return await self.process.wait(), errors


@contextlib.asynccontextmanager
async def program(*arguments: str, **environ: str):
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, "tail", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**inherited, "TZ": "UTC", **environ},
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def shop(answer: str = "ok", changes: int = 1):
    """A server that answers the join and then sends some changes, or floods without end."""

    async def handle(socket: ServerConnection) -> None:
        join = json.loads(await socket.recv())
        reply = {"status": answer, "response": {"reason": "Unauthorized: not yours"}}
        await socket.send(json.dumps(["1", join[1], TOPIC, "phx_reply", reply]))
        live = {"status": "ok", "message": "now", "extension": "postgres_changes", "channel": "x"}
        await socket.send(json.dumps(["1", None, TOPIC, "system", live]))
        change = json.dumps(["1", None, TOPIC, "postgres_changes", {"ids": [1], "data": CHANGE}])
        sent = 0
        with contextlib.suppress(ConnectionClosed):
            while changes < 0 or sent < changes:
                await socket.send(change)
                sent += 1
        await socket.wait_closed()

    async with serve(handle, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


KEY = {"HELIOGRAPH_SECRET_KEY": "sb_secret_" + "x" * 32}


@pytest.mark.asyncio
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_it_prints_changes_until_it_is_stopped(number, code):
    async with shop() as url, program("orders", "--url", url, **KEY) as running:
        line = await running.line()
        assert line == f"14:03:22.123{LINE}"
        running.process.send_signal(number)
        ended, errors = await running.end()
    assert ended == code
    assert errors == "-- subscribed; changes appear as they are committed\n"


@pytest.mark.asyncio
async def test_json_is_the_change_as_it_came_on_one_safe_line():
    async with shop() as url, program("orders", "--json", "--url", url, **KEY) as running:
        line = await running.line()
    assert json.loads(line) == CHANGE
    assert line.isprintable()


@pytest.mark.asyncio
async def test_the_address_may_come_from_the_environment():
    async with shop() as url, program("orders", SUPABASE_URL=url, **KEY) as running:
        assert (await running.line()).endswith(LINE)


@pytest.mark.asyncio
@pytest.mark.parametrize("form", [[], ["--json"]])
async def test_it_ends_quietly_when_nobody_reads_its_output_any_more(form):
    reading, writing = os.pipe()
    async with shop(changes=-1) as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, "tail", "orders", "--url", url, *form),
            stdout=writing,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **KEY},
        )
        os.close(writing)
        await asyncio.to_thread(os.read, reading, 1)
        os.close(reading)
        async with asyncio.timeout(20):
            _, errors = await process.communicate()
    assert process.returncode == 0
    assert errors.decode() == "-- subscribed; changes appear as they are committed\n"


@pytest.mark.asyncio
async def test_a_refusal_is_exit_code_1_with_the_servers_words():
    async with shop("error") as url, program("orders", "--url", url, **KEY) as running:
        code, errors = await running.end()
    assert code == 1
    assert "Unauthorized: not yours" in errors
    assert "Traceback" not in errors


@pytest.mark.asyncio
async def test_no_server_is_exit_code_1():
    async with program("orders", "--url", "http://127.0.0.1:1", **KEY) as running:
        code, errors = await running.end()
    assert code == 1
    assert "127.0.0.1:1 can not be reached" in errors


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("arguments", "environ", "text"),
    [
        ([], {}, "SUPABASE_SERVICE_ROLE_KEY: missing"),
        (["--as", "a@example.com"], {}, "HELIOGRAPH_JWT_SECRET: missing"),
        (["--url", "nowhere"], KEY, "http://127.0.0.1:8000"),
        ([], {"HELIOGRAPH_PORT": "many", **KEY}, "HELIOGRAPH_PORT"),
    ],
)
async def test_missing_settings_are_named_with_exit_code_2(tmp_path, arguments, environ, text):
    arguments = ["orders", "--data-dir", str(tmp_path), *arguments]
    async with program(*arguments, **environ) as running:
        code, errors = await running.end()
    assert code == 2
    assert text in errors
    assert "Traceback" not in errors


def consoles(*, is_terminal: bool) -> tuple[Terminal, io.StringIO]:
    output = io.StringIO()
    console = Console(
        file=output,
        force_terminal=is_terminal,
        color_system="standard" if is_terminal else None,
        markup=False,
        highlight=False,
        soft_wrap=True,
        width=20,
    )
    return Terminal(output=console, messages=console), output


def test_colours_are_for_terminals_only_and_lines_are_never_wrapped():
    content = json.dumps(CHANGE).encode()
    terminal, output = consoles(is_terminal=False)
    LineSink(terminal, is_many_tables=False).show_change(content)
    assert output.getvalue().endswith(f"{LINE}\n")
    assert "\x1b" not in output.getvalue()

    terminal, output = consoles(is_terminal=True)
    LineSink(terminal, is_many_tables=False).show_change(content)
    assert "\x1b[33mUPDATE\x1b[0m" in output.getvalue()
    assert "\x1b[2J" not in output.getvalue()
    assert output.getvalue().count("\n") == 1


@pytest.mark.parametrize("sink_class", [LineSink, JsonSink])
def test_a_notice_is_one_line_whatever_it_says(sink_class):
    terminal, output = consoles(is_terminal=False)
    sink = (
        LineSink(terminal, is_many_tables=False) if sink_class is LineSink else JsonSink(terminal)
    )
    sink.show_notice("two\nlines [bold]and\x1b[2J")
    assert output.getvalue() == "-- two\\u000alines [bold]and\\u001b[2J\n"


def test_a_second_ctrl_c_ends_a_close_that_hangs_without_a_traceback(monkeypatch):
    async def follow(_options):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()

    monkeypatch.setattr(tail, "_follow", follow)
    request = TailRequest("public", "orders", "*", None, ())
    assert tail.run_tail(tail.TailOptions(request, None, None, Path(), False)) == 130
