"""The committed reference pages say what the code says."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    path = ROOT / "scripts" / "generate_docs.py"
    spec = importlib.util.spec_from_file_location("generate_docs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Not left in sys.modules: only dataclasses need it there while the module is executed.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "generate_docs", module)
        spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_up_to_date(generator: ModuleType) -> None:
    differing = [
        path.name
        for path, text in generator.pages().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert not differing, f"{differing} differ from the code; run `make docs`"


def test_constants_share_the_comment_above_them(generator: ModuleType) -> None:
    limits = generator.read_limits(
        "from typing import Final\n"
        "# --- Part one ----------\n"
        "#: First line\n"
        "#: and second.\n"
        "A_S: Final = 1\n"
        "B_S: Final = 2\n"
        "#: Another.\n"
        "C_BYTES: Final = 1024\n"
    )
    assert [(limit.section, limit.names, limit.reason) for limit in limits] == [
        ("Part one", ("A_S", "B_S"), "First line and second."),
        ("Part one", ("C_BYTES",), "Another."),
    ]


def test_a_limit_without_a_reason_is_refused(generator: ModuleType) -> None:
    with pytest.raises(ValueError, match="A_S has no comment"):
        generator.read_limits("A_S: Final = 1\n")


def test_the_settings_show_the_defaults_that_hold(generator: ModuleType) -> None:
    page = generator.config_page()
    assert "| `HELIOGRAPH_PORT` | 8000 |" in page
    assert "| `HELIOGRAPH_RING_BYTES_MAX` | 268435456 bytes |" in page
    assert "None" not in page


def test_every_metric_is_described_with_its_labels(generator: ModuleType) -> None:
    page = generator.metrics_page()
    for row in (
        "| `heliograph_closes_total` | counter | `code`, `reason` | Sockets closed. |",
        "| `heliograph_resyncs_total` | counter | `reason` |",
        "| `heliograph_queue_depth` | gauge | `queue` |",
        "| `heliograph_commit_to_write_seconds` | histogram |  |",
    ):
        assert row in page


def test_every_page_is_listed() -> None:
    docs = ROOT / "docs"
    overviews = [docs / "README.md", *docs.glob("*/README.md")]
    listed = {
        (overview.parent / target).resolve()
        for overview in overviews
        for target in re.findall(r"\]\(([^)#]+)\)", overview.read_text(encoding="utf-8"))
    }
    pages = list(docs.glob("[!d]*/*.md"))
    assert len(pages) > 10
    assert [page.name for page in pages if page.resolve() not in listed] == []
