"""The end of a source."""

from __future__ import annotations

import asyncio

from gapless.testing.source_contract.scene import SourceCase, SourceScene


class ClosingContract(SourceCase):
    """What `close` promises."""

    def test_closing_ends_everything(self) -> None:
        """Also a second time, and with no task of the source's left behind."""

        async def act(scene: SourceScene) -> None:
            before = asyncio.all_tasks()
            head = await self.soon(scene.source.head())
            await self.soon(scene.source.wait_head(head.latest, 0.05))
            first = scene.truth()[0].position
            await self.fetched(scene, first, first + 9)
            mine = {task for task in asyncio.all_tasks() - before if _is_of(scene.source, task)}
            await self.soon(scene.source.close())
            await self.soon(scene.source.close())
            await asyncio.sleep(0)  # noqa: TID251 - what was cancelled gets its end
            assert not [task for task in mine if not task.done()]
            left = {task for task in asyncio.all_tasks() - before if _is_of(scene.source, task)}
            assert not left, f"left behind: {left}"

        self.play(act)

    def test_a_source_that_was_never_used_closes_too(self) -> None:
        """Nothing need be open for it."""

        async def act(scene: SourceScene) -> None:
            await self.soon(scene.source.close())

        self.play(act)


def _is_of(source: object, task: asyncio.Task[object]) -> bool:
    """Whether a task is the source's own: its code lies in the source's package. A node in the same loop has others."""
    code = getattr(task.get_coro(), "cr_code", None)
    package = type(source).__module__.rpartition(".")[0].replace(".", "/")
    return code is not None and (not package or package in code.co_filename)
