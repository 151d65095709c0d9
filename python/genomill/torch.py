"""`torch.utils.data` over a shard folder: by row, or as a stream that resumes exactly; needs the package torch.

Units: a sample is one row of `context` tokens, as int64. Memory: what `genomill.ShardSet` takes, plus the samples
under way; the workers of a `DataLoader`, forked or spawned, share the files' pages.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence, Sized
from typing import Any, Optional, Union

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

from genomill.manifest import ShardError
from genomill.order import Order
from genomill.shards import Indices, ShardSet
from genomill.share import Position


def place_in_world() -> tuple[int, int]:
    """This process's rank and how many there are: of torch.distributed, else as torchrun says, else 0 of 1."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class ShardDataset(Dataset[torch.Tensor]):
    """The rows of one split: `dataset[i]` is an int64 tensor of shape (context,).

    The rows as numpy arrays, their provenance and the tokenizer are at `dataset.shards`. `ShardSampler` shuffles them.
    """

    def __init__(self, folder: str | os.PathLike[str], split: str = "train") -> None:
        self.shards = ShardSet(folder, split)

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.shards[index].astype(np.int64))

    def __getitems__(self, indices: Sequence[int]) -> list[torch.Tensor]:
        """A batch at once, as `DataLoader` asks for it."""
        return list(rows_of(self.shards, indices))


def rows_of(shards: ShardSet, indices: Indices) -> torch.Tensor:
    """The rows as one int64 tensor of shape (len(indices), context)."""
    tokens = torch.empty((len(indices), shards.context), dtype=torch.int64)
    shards.batch(indices, out=tokens.numpy())
    return tokens


class _Resumable:
    """What a stream and a sampler have in common: a position in a shuffled order, and its state."""

    _position: Position

    def state_dict(self) -> dict[str, Any]:
        """Where this reader is, after the last sample or batch that it gave."""
        return self._position.state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state of the same order. Ranks and workers may be as many as before, or another number if the
        state was taken without workers or made by `state_after`. Raises ShardError for what does not fit."""
        self._position.load(state)

    def state_after(self, batches: int) -> dict[str, Any]:
        """The state when every rank has taken `batches` batches since the beginning of the pass; for any number of
        ranks and workers. Computed, not recorded: it holds whatever a `DataLoader` has fetched ahead."""
        return self._position.state_after(batches)

    def set_epoch(self, epoch: int) -> None:
        """Begins at the start of an epoch."""
        self._position.begin_epoch(epoch)


class ShardStream(_Resumable, IterableDataset[torch.Tensor]):
    """The rows of one split in the order of the Rust sampler, shared by all ranks and workers, resumable at any point.

    With `batch_size`, gives tensors of shape (batch_size, context), for `DataLoader(stream, batch_size=None)`: batches
    then come in the same order with any number of workers. Without, gives single rows. `endless` goes on from epoch to
    epoch; else a pass ends with its epoch and the next pass is the next epoch (with workers that are not persistent,
    call `set_epoch`). `drop_last` gives every rank as many batches, all of them full.

    `block` shuffles blocks of that many neighbouring rows and mixes the rows of `window` blocks: for slow disks.
    `rank` and `world` are those of torch.distributed or of torchrun (RANK, WORLD_SIZE) unless given.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        split: str = "train",
        *,
        seed: int = 0,
        batch_size: Optional[int] = None,
        endless: bool = True,
        drop_last: bool = False,
        block: Optional[int] = None,
        window: int = 16,
        rank: Optional[int] = None,
        world: Optional[int] = None,
    ) -> None:
        self.shards = ShardSet(folder, split)
        if not len(self.shards):
            raise ShardError(f"{self.shards.folder}: split {split!r} has no rows to shuffle")
        self._batched = batch_size is not None
        order = Order(seed, len(self.shards), block, window)
        here = place_in_world()
        rank, world = here[0] if rank is None else rank, here[1] if world is None else world
        batch = 1 if batch_size is None else batch_size
        self._position = Position(order, batch, rank, world, endless, drop_last)

    def __iter__(self) -> Iterator[torch.Tensor]:
        # A generator: a state that is loaded between iter() and the first next() counts.
        worker = get_worker_info()
        self._position.settle(*(0, 1) if worker is None else (worker.id, worker.num_workers))
        for rows in self._position.walk():
            tokens = rows_of(self.shards, rows)
            yield tokens if self._batched else tokens[0]

    def __len__(self) -> int:
        """Batches (or rows) that this rank takes in a pass from the present position."""
        share = self._position.share()
        if share.batches is None:
            raise TypeError("an endless stream has no length")
        return share.batches


class ShardSampler(_Resumable, Sampler[int]):
    """Gives a map-style dataset the order of the Rust sampler: `DataLoader(dataset, sampler=ShardSampler(dataset))`.

    Parameters as those of `ShardStream`. The state counts the indices that were drawn; `state_after` takes rows.
    """

    def __init__(
        self,
        rows: Union[int, Sized],
        *,
        seed: int = 0,
        endless: bool = False,
        drop_last: bool = False,
        block: Optional[int] = None,
        window: int = 16,
        rank: Optional[int] = None,
        world: Optional[int] = None,
    ) -> None:
        order = Order(seed, rows if isinstance(rows, int) else len(rows), block, window)
        here = place_in_world()
        rank, world = here[0] if rank is None else rank, here[1] if world is None else world
        self._position = Position(order, 1, rank, world, endless, drop_last)

    def __iter__(self) -> Iterator[int]:
        self._position.settle(0, 1)
        for rows in self._position.walk():
            yield int(rows[0])

    def __len__(self) -> int:
        share = self._position.share()
        if share.batches is None:
            raise TypeError("an endless order has no length")
        return share.batches
