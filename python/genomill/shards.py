"""The rows of one split, as numpy views of the memory-mapped files.

Units: a row is `context` tokens; indices count rows over all files of the split, in the manifest's order.
Memory: one map per file that was read from (`batch` maps all), and one array header per token page. Opening reads no
token.
"""

from __future__ import annotations

import mmap
import os
import sys
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union, cast

import numpy as np
import numpy.typing as npt

from genomill import manifest
from genomill.manifest import ShardError, ShardFile

Tokens = npt.NDArray[Any]  # uint16 or uint32, as the manifest says
Indices = Union[Sequence[int], npt.NDArray[np.integer[Any]]]

# A map needs no open file; older Pythons keep one nevertheless.
_NO_FILE: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
_DTYPES: dict[int, np.dtype[Any]] = {2: np.dtype("<u2"), 4: np.dtype("<u4")}


class Segment(NamedTuple):
    """Where tokens `token_start..token_end` of a row come from: bases `start..end` of a record of a source.

    Bases are 0-based and half-open, and always count along the forward strand; with `strand` "-" the tokens spell
    their reverse complement. Tokens outside of all segments are special tokens or padding.
    """

    token_start: int
    token_end: int
    record: str
    source: str
    start: int
    end: int
    strand: str


class Verified(NamedTuple):
    """What `ShardSet.verify` looked at. `hashed` is False where the package `blake3` is not installed."""

    files: int
    bytes: int
    rows: int
    hashed: bool


def open(folder: str | os.PathLike[str], split: str = "train", *, verify: str = "sizes") -> ShardSet:
    """Opens one split of a shard folder.

    Raises ShardError if the manifest is missing, of another schema or inconsistent, or if a file is missing or does
    not have the size that the manifest says. The bytes themselves are checked by `ShardSet.verify`, which
    `verify="full"` calls before anything is read.
    """
    return ShardSet(folder, split, verify=verify)


class ShardSet:
    """The rows of one split: `len(shards)`, `shards[i]`, `shards[i:j]`, `shards.batch(indices)`.

    Safe to share between threads, to fork, and to pickle (a copy maps the files anew). While it is open, the files
    must not change: the views are the files' own bytes.
    """

    def __init__(self, folder: str | os.PathLike[str], split: str = "train", *, verify: str = "sizes") -> None:
        if verify not in ("sizes", "full"):
            raise ValueError(f"verify is {verify!r}, expected 'sizes' or 'full'")
        self._open(Path(folder), split)
        if verify == "full":
            self.verify()

    def _open(self, folder: Path, split: str) -> None:
        self._split = manifest.read(folder, split)
        self._rows = self._split.rows
        self._closed = False
        self._dtype = _DTYPES[self._split.token_bytes]
        pages = [(number, page) for number, file in enumerate(self._split.files) for page in file.pages]
        rows = np.array([page.rows for _, page in pages], dtype=np.int64)
        self._page_file = np.array([number for number, _ in pages], dtype=np.int64)
        self._page_offset = np.array([page.offset for _, page in pages], dtype=np.int64)
        self._page_rows = rows
        self._page_first = np.cumsum(rows) - rows
        self._firsts: list[int] = self._page_first.tolist()
        self._views: list[Any] = [None] * len(pages)
        self._maps: list[Any] = [None] * len(self._split.files)
        self._gatherer: Optional[Gatherer] = None
        self._segments: tuple[Any, int, Any] = (None, 0, ())

    # --- what it is ---

    @property
    def folder(self) -> Path:
        return self._split.folder

    @property
    def split(self) -> str:
        return self._split.name

    @property
    def context(self) -> int:
        """Tokens per row."""
        return self._split.context

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16 or uint32, little-endian."""
        return self._dtype

    @property
    def vocabulary_size(self) -> int:
        """Every token is below it."""
        return self._split.vocabulary_size

    @property
    def special(self) -> Mapping[str, int]:
        """The ids of the special tokens, such as "[PAD]"."""
        return self._split.special

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer.json that made the tokens; `tokenizers.Tokenizer.from_file` reads it."""
        return self._split.tokenizer_path

    @property
    def tokens(self) -> int:
        """Tokens of all rows without padding."""
        return self._split.tokens

    @property
    def bases(self) -> int:
        """Bases that all rows stand for."""
        return self._split.bases

    @property
    def padding(self) -> int:
        """Padding tokens of all rows."""
        return self._split.padding

    def __repr__(self) -> str:
        return f"<genomill.ShardSet {self.split!r} of {self.folder}: {len(self)} rows of {self.context} {self.dtype}>"

    # --- rows ---

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int | slice) -> Tokens:
        """A row, as a read-only view of the file; or rows, as a view where they lie in one page, else as a copy."""
        if isinstance(index, slice):
            return self._slice(index)
        row = index if index >= 0 else index + self._rows
        if not 0 <= row < self._rows:
            raise IndexError(f"row {index} of {self._rows}")
        page = bisect_right(self._firsts, row) - 1
        view = self._views[page]
        if view is None:
            view = self._view(page)
        return cast(Tokens, view[row - self._firsts[page]])

    def _slice(self, index: slice) -> Tokens:
        start, stop, step = index.indices(self._rows)
        if step == 1 and start < stop:
            page = bisect_right(self._firsts, start) - 1
            first = self._firsts[page]
            if stop <= first + self._page_rows[page]:
                return self._view(page)[start - first : stop - first]
        return self.batch(np.arange(start, stop, step))

    def __iter__(self) -> Iterator[Tokens]:
        for page in range(len(self._views)):
            yield from self._view(page)

    def batch(self, indices: Indices, out: Optional[npt.NDArray[Any]] = None) -> Tokens:
        """The rows at `indices`, in that order, copied into a new array of shape (len(indices), context).

        With `out`, an array of that shape and of any integers that hold the vocabulary (such as int64), copies into it
        and returns it.
        """
        rows = self._integers(indices)
        if self._gatherer is None:
            if not rows.size:
                return np.empty((0, self.context), dtype=self._dtype) if out is None else self._checked(out, 0)
            self._gatherer = self._gather_from_all()
        try:
            found = self._gatherer.rows(rows)
        except IndexError:  # there are negative ones, or ones that are none
            found = self._gatherer.rows(self._rows_of(rows))
        if out is None:
            return found
        self._checked(out, len(rows))[...] = found
        return out

    def _checked(self, out: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
        kind, bits = out.dtype.kind, 8 * out.dtype.itemsize
        whole = kind in "iu" and self.vocabulary_size - 1 < 1 << (bits - (kind == "i"))
        if out.shape != (rows, self.context) or not whole:
            wanted = f"({rows}, {self.context}) and integers that hold {self.vocabulary_size - 1}"
            raise TypeError(f"out has shape {out.shape} and type {out.dtype}, expected {wanted}")
        return out

    def _gather_from_all(self) -> Gatherer:
        maps = [self._map(number) for number in range(len(self._maps))]
        pages = (self._page_file, self._page_offset, self._page_first)
        return Gatherer(maps, *pages, self._rows, self.context, self._dtype)

    @staticmethod
    def _integers(indices: Indices) -> npt.NDArray[np.int64]:
        given = np.asarray(indices)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise TypeError(f"indices have shape {given.shape} and type {given.dtype}, expected a list of integers")
        return given.astype(np.int64, copy=False)

    def _rows_of(self, indices: Indices) -> npt.NDArray[np.int64]:
        given = self._integers(indices)
        rows = np.where(given < 0, given + self._rows, given)
        outside = (rows < 0) | (rows >= self._rows)
        if outside.any():
            raise IndexError(f"row {given[outside][0]} of {self._rows}")
        return rows

    # --- maps ---

    def _map(self, number: int) -> Any:
        """The file's map, made when it is first needed."""
        if self._closed:
            raise ShardError(f"{self.folder}: closed")
        if self._maps[number] is None:
            self._maps[number] = map_file(self._split.files[number])
        return self._maps[number]

    def _view(self, page: int) -> Tokens:
        """The page's rows, of shape (rows, context)."""
        if self._views[page] is None:
            source = self._map(int(self._page_file[page]))
            rows, offset = int(self._page_rows[page]), int(self._page_offset[page])
            flat = np.frombuffer(source, self._dtype, count=rows * self.context, offset=offset)
            self._views[page] = flat.reshape(rows, self.context)
        return cast(Tokens, self._views[page])

    # --- provenance ---

    def provenance(self, index: int) -> list[Segment]:
        """Where the row's tokens come from, in the order of the tokens. Needs the package pyarrow."""
        row = int(self._rows_of([index])[0])
        for file in self._split.files:
            if row < file.rows:
                return self._segments_of(file, row)
            row -= file.rows
        raise AssertionError("the rows of the files add up to those of the split")

    def _segments_of(self, file: ShardFile, row: int) -> list[Segment]:
        """Of a row of the file; keeps the row group, since the next question is often about a neighbour."""
        path, first, column = self._segments
        if path != file.path or not first <= row < first + len(column):
            first, column = read_segments(file, row)
            self._segments = (file.path, first, column)
        return [Segment(**segment) for segment in column[row - first].as_py()]

    # --- checking ---

    def verify(self) -> Verified:
        """Reads every byte: sizes, that every token is below `vocabulary_size`, and, where the package `blake3` is
        installed, each file's hash. Raises ShardError that lists all that is wrong."""
        hashed = blake3_of("") is not None
        faults = [fault for number in range(len(self._split.files)) for fault in self._faults_of(number)]
        if faults:
            raise ShardError("\n".join(faults))
        files = self._split.files
        return Verified(len(files), sum(file.bytes for file in files), len(self), hashed)

    def _faults_of(self, number: int) -> Iterator[str]:
        file = self._split.files[number]
        try:
            manifest.check_size(file)
        except ShardError as error:
            yield str(error)
            return
        digest = blake3_of(self._map(number))
        if digest is not None and digest != file.blake3:
            yield f"{file.path}: blake3 is {digest}, and the manifest says {file.blake3}"
        for page in np.flatnonzero(self._page_file == number):
            yield from self._tokens_too_large(file, int(page))

    def _tokens_too_large(self, file: ShardFile, page: int) -> Iterator[str]:
        tokens = self._view(page).reshape(-1)
        if tokens.size and tokens.max() >= self.vocabulary_size:
            at = int(np.argmax(tokens >= self.vocabulary_size))
            offset = int(self._page_offset[page]) + at * self._split.token_bytes
            yield (
                f"{file.path}: byte {offset}: token is {tokens[at]}, expected below the vocabulary size "
                f"{self.vocabulary_size}"
            )

    # --- life ---

    def close(self) -> None:
        """Lets go of the maps. Views that are still in use stay valid and keep theirs."""
        self._closed = True
        self._views = [None] * len(self._views)
        self._maps = [None] * len(self._maps)
        self._gatherer = None
        self._segments = (None, 0, ())

    def __enter__(self) -> ShardSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, str]:
        return {"folder": str(self.folder.absolute()), "split": self.split}

    def __setstate__(self, state: dict[str, str]) -> None:
        self._open(Path(state["folder"]), state["split"])


class Gatherer:
    """Copies rows out of all maps in one call of numpy, however many pages and files they lie in.

    The maps lie somewhere in the memory of this process. One array of row-sized elements spans them all, with one
    element for each byte, so that a row is the element at its address less that of the first map. Between the maps
    nothing is ever read: a row that is none has no page, and the pages were checked when the manifest was read.
    """

    def __init__(
        self,
        maps: Sequence[mmap.mmap],
        page_file: npt.NDArray[np.int64],
        page_offset: npt.NDArray[np.int64],
        page_first: npt.NDArray[np.int64],
        rows: int,
        context: int,
        dtype: np.dtype[Any],
    ) -> None:
        self._context, self._dtype, self._row_bytes = context, dtype, context * dtype.itemsize
        bytes_of = [np.frombuffer(file, np.uint8) for file in maps]
        starts = np.array([file.ctypes.data for file in bytes_of], dtype=np.int64)
        span = max(start + file.size for start, file in zip(starts.tolist(), bytes_of)) - int(starts.min())
        self._first, self._file, self._offset = page_first, page_file, page_offset
        # One past the last row of each page; unsigned, so that a negative row lies behind all pages.
        self._end = np.append(page_first[1:], rows).astype(np.uint64)
        # A row begins at `start of its page's row 0 + row * row_bytes` of the span.
        self._base = starts[page_file] - starts.min() + page_offset - page_first * self._row_bytes
        self._maps = maps
        self._rows = self._whole(int(starts.min()), span)

    def _whole(self, start: int, span: int) -> Optional[npt.NDArray[Any]]:
        """The array over all maps, or None where numpy cannot count its bytes: rows of megabytes, maps far apart."""
        if span * self._row_bytes >= 1 << 62:
            return None
        return np.asarray(_Span(self._maps, start, span - self._row_bytes + 1, self._row_bytes))

    def rows(self, rows: npt.NDArray[np.int64]) -> Tokens:
        """The rows as a new array of shape (len(rows), context). Raises IndexError for those that are none."""
        pages = self._end.searchsorted(rows.view(np.uint64), "right")
        start = self._base[pages] + rows * self._row_bytes
        if self._rows is None:
            return self._one_by_one(rows, pages)
        return cast(Tokens, self._rows[start].view(self._dtype).reshape(len(rows), self._context))

    def _one_by_one(self, rows: npt.NDArray[np.int64], pages: npt.NDArray[np.intp]) -> Tokens:
        out = np.empty((len(rows), self._context), dtype=self._dtype)
        offsets = self._offset[pages] + (rows - self._first[pages]) * self._row_bytes
        for place, (file, offset) in enumerate(zip(self._file[pages].tolist(), offsets.tolist())):
            out[place] = np.frombuffer(self._maps[file], self._dtype, count=self._context, offset=offset)
        return out


class _Span:
    """Tells numpy of the memory from `start` on, and keeps the maps in it alive."""

    def __init__(self, maps: Sequence[mmap.mmap], start: int, length: int, row_bytes: int) -> None:
        self._maps = list(maps)
        self.__array_interface__ = {
            "data": (start, True),
            "shape": (length,),
            "strides": (1,),
            "typestr": f"|V{row_bytes}",
            "version": 3,
        }


def map_file(file: ShardFile) -> mmap.mmap:
    """The file's bytes, read-only; checked against the manifest's size once more, since it may have changed since."""
    try:
        descriptor = os.open(file.path, os.O_RDONLY)
    except OSError as error:
        raise ShardError(f"{file.path}: {error.strerror}") from error
    try:
        if (size := os.fstat(descriptor).st_size) != file.bytes:
            raise ShardError(f"{file.path}: size is {size} bytes, and the manifest says {file.bytes}")
        return mmap.mmap(descriptor, file.bytes, access=mmap.ACCESS_READ, **_NO_FILE)
    finally:
        os.close(descriptor)


def read_segments(file: ShardFile, row: int) -> tuple[int, Any]:
    """The column `segments` of the row group that holds the row, and the group's first row."""
    from pyarrow import parquet

    with parquet.ParquetFile(file.path) as reader:
        group = first = 0
        while row >= first + reader.metadata.row_group(group).num_rows:
            first += reader.metadata.row_group(group).num_rows
            group += 1
        return first, reader.read_row_group(group, columns=["segments"]).column("segments")


def blake3_of(data: Any) -> str | None:
    """The hash in hex, or None where the package is not installed."""
    try:
        from blake3 import blake3
    except ImportError:
        return None
    return str(blake3(data if data else b"").hexdigest())
