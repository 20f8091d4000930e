"""Where unforeseen errors end: around work that others must survive.

They are caught here, and in `delivery.dispatcher`, which hands them to `Supervisor.note`.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TypeVar

import structlog

_log = structlog.get_logger("heliograph.supervision")


T = TypeVar("T")


class Supervisor:
    """Owns tasks whose failure must not end the others.

    A bug in the work of one audience ends that work: it is logged with its traceback (which holds
    no row values), counted, and ``on_failure`` tells those concerned.
    """

    def __init__(self, group: asyncio.TaskGroup) -> None:
        """Spawn into ``group``; its end ends every task."""
        self._group = group
        self.tasks: set[asyncio.Task[None]] = set()
        self.failures = 0

    def spawn(
        self,
        work: Coroutine[object, object, None],
        *,
        name: str,
        on_failure: Callable[[], None] | None = None,
    ) -> asyncio.Task[None]:
        """Run ``work`` in a task.

        Args:
            work: What to run.
            name: Appears in the log.
            on_failure: Called when it raised something unforeseen.
        """
        task = self._group.create_task(self._guarded(work, name, on_failure), name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        # A task cancelled before its first step never gets to await its work.
        task.add_done_callback(lambda _task: work.close())
        return task

    async def _guarded(
        self,
        work: Coroutine[object, object, None],
        name: str,
        on_failure: Callable[[], None] | None,
    ) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - the supervisor's boundary: others go on
            self.note(error, name=name, on_failure=on_failure)

    def call(
        self, work: Callable[[T], None], subject: T, *, name: str, on_failure: Callable[[T], None]
    ) -> None:
        """Do ``work`` at once; like `spawn`, an unforeseen error ends it and nothing else."""
        try:
            work(subject)
        except Exception as error:  # noqa: BLE001 - the supervisor's boundary: others go on
            self.note(error, name=name, on_failure=partial(on_failure, subject))

    def note(
        self, error: Exception, *, name: str, on_failure: Callable[[], None] | None = None
    ) -> None:
        """Log and count an unforeseen error, and tell those concerned."""
        self.failures += 1
        _log.error("task_failed", task=name, error=type(error).__name__, exc_info=error)
        if on_failure is not None:
            on_failure()
