"""A `torch.utils.data.Dataset` of a shard folder; needs the package torch.

Units: a sample is one row of `context` tokens, as int64. Memory: what `genomill.ShardSet` takes, plus the samples
under way; the workers of a `DataLoader`, forked or spawned, share the files' pages.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from genomill.shards import ShardSet


class ShardDataset(Dataset[torch.Tensor]):
    """The rows of one split: `dataset[i]` is an int64 tensor of shape (context,).

    The rows as numpy arrays, their provenance and the tokenizer are at `dataset.shards`.
    """

    def __init__(self, folder: str | os.PathLike[str], split: str = "train") -> None:
        self.shards = ShardSet(folder, split)

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.shards[index].astype(np.int64))

    def __getitems__(self, indices: Sequence[int]) -> list[torch.Tensor]:
        """A batch at once, as `DataLoader` asks for it."""
        return list(torch.from_numpy(self.shards.batch(indices).astype(np.int64)))
