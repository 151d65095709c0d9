"""The order in which rows come: the permutation of the Rust sampler, number for number (schemas/order.md).

Units: a number counts the samples of all ranks and all epochs since the beginning; a row counts the rows of a split.
Memory: a few arrays as long as the numbers asked for. Nothing is stored: any number costs the same, wherever it lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]

_ROUNDS = 6
_LARGEST = 2**64 - 1
# What the keys of an epoch are for.
_BLOCKS, _SHORT, _WINDOWS = 1, 2, 3


def _u64(value: int) -> U64:
    """An array, since numpy wraps those around in silence and single numbers not."""
    return np.array([value & _LARGEST], dtype=np.uint64)


_STEP, _FIRST, _SECOND = (_u64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_30, _27, _31, _56 = (_u64(c) for c in (30, 27, 31, 56))


def mix(value: U64) -> U64:
    """Scrambles 64 bits: a bijection whose every output bit depends on every input bit."""
    value = value + _STEP
    value = (value ^ (value >> _30)) * _FIRST
    value = (value ^ (value >> _27)) * _SECOND
    return value ^ (value >> _31)


def permute(index: U64, length: U64, key: U64) -> U64:
    """The images of `index` under the permutations of `0..length` that the keys name."""
    index, length, key = np.broadcast_arrays(index, length, key)
    half = _half_bits(length)
    value = _feistel(index, half, key)
    while (outside := value >= length).any():
        value[outside] = _feistel(value[outside], half[outside], key[outside])
    return value


def _half_bits(length: U64) -> U64:
    """Half the bits, rounded up, of the largest index below each length; at least 1."""
    bits = {int(n): max(1, ((int(n) - 1).bit_length() + 1) // 2) for n in np.unique(length)}
    if len(bits) == 1:
        return np.full(length.shape, next(iter(bits.values())), dtype=np.uint64)
    return np.array([bits[int(n)] for n in length], dtype=np.uint64)


def _feistel(value: U64, half: U64, key: U64) -> U64:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = value >> half, value & mask
    for round_ in range(_ROUNDS):
        left, right = right, left ^ (mix(key ^ mix(right ^ (_u64(round_) << _56))) & mask)
    return (left << half) | right


@dataclass(frozen=True)
class Order:
    """A shuffled, endless order of the rows `0..rows`; each run of `rows` numbers is an epoch with every row once.

    With `block`, runs of `block` neighbouring rows stay near each other: the blocks are shuffled, then the rows within
    every `window` blocks, so that a disk or a cache sees a few blocks at a time.
    """

    seed: int
    rows: int
    block: Optional[int] = None
    window: int = 16

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= _LARGEST:
            raise ValueError(f"seed is {self.seed}, expected 0 to {_LARGEST}")
        for name, value in (("rows", self.rows), ("block", self.block), ("window", self.window)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")

    def row(self, number: int) -> int:
        """The row of one number."""
        return int(self.at([number])[0])

    def at(self, numbers: Union[list[int], range, npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
        """The rows of many numbers, each below 2**64."""
        given = np.asarray(numbers, dtype=np.uint64).reshape(-1)
        if not given.size:
            return np.empty(0, dtype=np.int64)
        rows = _u64(self.rows)
        key = mix(_u64(self.seed) ^ mix(given // rows))
        within = given % rows
        found = permute(within, rows, key) if self.block is None else self._in_blocks(within, key, self.block)
        return found.astype(np.int64)

    def _in_blocks(self, at: U64, key: U64, block_rows: int) -> U64:
        """Places of the short block, of the window and of the block, one after the other; see schemas/order.md."""
        block = min(block_rows, self.rows)
        full, tail = divmod(self.rows, block)
        places = full + (tail > 0)
        window = _u64(min(self.window, places))
        lay = _Lay(_u64(block), _u64(tail), self._short_place(key, places, tail))
        number = lay.place(at) // window
        first = lay.start(number * window)
        last = lay.start(np.minimum((number + _u64(1)) * window, _u64(places)))
        inner = first + permute(at - first, last - first, mix(key ^ mix(number + _u64(_WINDOWS))))
        place = lay.place(inner)
        rank = place - (place > lay.short).astype(np.uint64)
        drawn = permute(np.minimum(rank, _u64(full - 1)), _u64(full), mix(key ^ mix(_u64(_BLOCKS))))
        chosen = np.where(place == lay.short, _u64(full), drawn)
        return chosen * _u64(block) + (inner - lay.start(place))

    @staticmethod
    def _short_place(key: U64, places: int, tail: int) -> U64:
        if not tail:
            return np.full(key.shape, places, dtype=np.uint64)
        return mix(key ^ mix(_u64(_SHORT))) % _u64(places)


@dataclass(frozen=True)
class _Lay:
    """Blocks of `block` rows one after the other, but for one of `tail` rows at place `short` (past the end: none)."""

    block: U64
    tail: U64
    short: U64

    def start(self, place: U64) -> U64:
        return place * self.block - np.where(place > self.short, self.block - self.tail, _u64(0))

    def place(self, at: U64) -> U64:
        missing = np.where(at >= self.short * self.block + self.tail, self.block - self.tail, _u64(0))
        return (at + missing) // self.block
