"""What one of several readers takes from a shuffled order, in batches, from any number on; no torch here.

Units: a number counts samples over all ranks and epochs (see `genomill.order`); a step is one batch on each rank.
Memory: the numbers asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from genomill.manifest import ShardError
from genomill.order import Order

#: How many rows are looked up at a time; the first look-up is for one batch, so that a start is quick.
AHEAD = 4096


@dataclass(frozen=True)
class Share:
    """The part of rank `rank` of `world`: batch `k` holds numbers `first + (k * batch + i) * world + rank`, i < batch.

    Ranks take turns number by number, so that after any step all ranks together have taken a run of the order without
    a gap, and any other number of ranks can go on behind it. `end` is the first number that nobody takes.
    """

    order: Order
    first: int
    rank: int
    world: int
    batch: int = 1
    end: Optional[int] = None
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.world < 1 or not 0 <= self.rank < self.world:
            raise ValueError(f"rank is {self.rank} of {self.world}, expected 0 to {self.world - 1}")
        if self.batch < 1:
            raise ValueError(f"batch_size is {self.batch}, expected at least 1")

    @property
    def batches(self) -> Optional[int]:
        """How many batches this rank takes; None without an end. With `drop_last`, all ranks take as many."""
        if self.end is None:
            return None
        left = max(0, self.end - self.first)
        if self.drop_last:
            return left // (self.batch * self.world)
        mine = (left - self.rank + self.world - 1) // self.world
        return (mine + self.batch - 1) // self.batch

    def after(self, batches: int) -> int:
        """The number at which to go on when every rank has taken `batches` batches."""
        number = self.first + batches * self.batch * self.world
        return number if self.end is None else min(number, self.end)

    def rows(self, start: int = 0, step: int = 1) -> Iterator[npt.NDArray[np.int64]]:
        """The rows of batches `start`, `start + step`, ..., each batch an array."""
        number, many = start, 1
        while (count := self._count(number, step, many)) > 0:
            yield from self._look_up(number, step, count)
            number += count * step
            many = min(many * 2, max(1, AHEAD // self.batch))

    def _count(self, number: int, step: int, many: int) -> int:
        total = self.batches
        return many if total is None else min(many, (total - number + step - 1) // step)

    def _look_up(self, number: int, step: int, count: int) -> Iterator[npt.NDArray[np.int64]]:
        steps = np.arange(count, dtype=np.uint64)[:, None] * np.uint64(step * self.batch)
        within = steps + np.arange(self.batch, dtype=np.uint64)
        begin = self.first + number * self.batch * self.world + self.rank
        numbers = within * np.uint64(self.world) + np.uint64(begin)
        found = self.order.at(numbers.reshape(-1)).reshape(numbers.shape)
        for rows, which in zip(found, numbers):
            yield rows if self.end is None else rows[which < np.uint64(self.end)]


class Position:
    """Where a reader is: `first` of its share, and how many batches it has `taken` since.

    A reader that shares its rank with other workers counts its own batches only.
    """

    def __init__(self, order: Order, batch: int, rank: int, world: int, endless: bool, drop_last: bool) -> None:
        self.order, self.batch, self.rank, self.world = order, batch, rank, world
        self.endless, self.drop_last = endless, drop_last
        self.first = self.taken = 0
        self.worker, self.workers = 0, 1
        self.share()

    def share(self) -> Share:
        """From `first` on: without end, or to the end of the epoch that `first` lies in."""
        rows = self.order.rows
        end = None if self.endless else (self.first // rows + 1) * rows
        return Share(self.order, self.first, self.rank, self.world, self.batch, end, self.drop_last)

    def settle(self, worker: int, workers: int) -> None:
        """This reader is worker `worker` of `workers`. A position that was taken elsewhere becomes one from here."""
        if (worker, workers) != (self.worker, self.workers):
            self._leave_layout()
        self.worker, self.workers = worker, workers

    def _leave_layout(self) -> None:
        if self.workers > 1 and self.taken:
            raise ShardError(
                f"the state is that of worker {self.worker} of {self.workers}, which cannot tell where the others are; "
                "resume with as many ranks and workers, or from `state_after(batches)`"
            )
        self.first, self.taken, self.worker, self.workers = self.share().after(self.taken), 0, 0, 1

    def walk(self) -> Iterator[npt.NDArray[np.int64]]:
        """The rows of the batches that are left; the position moves along, and behind an epoch's end to the next."""
        share = self.share()
        for rows in share.rows(self.worker + self.taken * self.workers, self.workers):
            self.taken += 1
            yield rows
        self.first, self.taken = share.end or 0, 0

    def state(self) -> dict[str, Any]:
        blocks = {"block": self.order.block, "window": self.order.window} if self.order.block else {}
        order = {"seed": self.order.seed, "rows": self.order.rows, **blocks}
        place = {"first": self.first, "taken": self.taken, "batch_size": self.batch, "world": self.world}
        return {"order": order, **place, "rank": self.rank, "worker": self.worker, "workers": self.workers}

    def state_after(self, batches: int) -> dict[str, Any]:
        return {**self.state(), "first": self.share().after(batches), "taken": 0, "worker": 0, "workers": 1}

    def load(self, state: dict[str, Any]) -> None:
        """Takes up a state of the same order, of any number of ranks."""
        order = self.state()["order"]
        if state.get("order") != order:
            raise ShardError(f"the state is of another order: {state.get('order')}, and this is {order}")
        here = (self.rank, self.world, self.batch)
        try:
            self.rank, self.world, self.batch = (int(state[key]) for key in ("rank", "world", "batch_size"))
            self.first, self.taken = int(state["first"]), int(state["taken"])
            self.worker, self.workers = int(state["worker"]), int(state["workers"])
            if (self.rank, self.world, self.batch) != here:
                self._leave_layout()
        except KeyError as error:
            raise ShardError(f"the state has no {error}") from error
        finally:
            self.rank, self.world, self.batch = here

    def begin_epoch(self, epoch: int) -> None:
        self.first, self.taken, self.worker, self.workers = epoch * self.order.rows, 0, 0, 1
