"""What a shard folder says of itself: `manifest.json`, read and checked before a token is served.

Units: offsets and sizes in bytes, rows of `context` tokens. Memory: a small object per token page (about 1 MB of
tokens each).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA = "genomill/shard/1"
TOKEN_BYTES = (2, 4)
ALIGNMENT = 64


class ShardError(Exception):
    """A shard folder is not what it should be; the message says what, where, what was found and what was expected."""


@dataclass(frozen=True)
class Page:
    """A run of rows that lie one after the other in a file, beginning at byte `offset`."""

    offset: int
    rows: int


@dataclass(frozen=True)
class ShardFile:
    """One Parquet file of a split."""

    path: Path
    rows: int
    bytes: int
    blake3: str
    pages: tuple[Page, ...]


@dataclass(frozen=True)
class Split:
    """One split of a shard folder. `tokens` counts without padding; `bases` are those that the tokens stand for."""

    folder: Path
    name: str
    context: int
    token_bytes: int
    vocabulary_size: int
    special: Mapping[str, int]
    tokenizer_path: Path
    rows: int
    tokens: int
    bases: int
    padding: int
    files: tuple[ShardFile, ...]

    @property
    def row_bytes(self) -> int:
        return self.context * self.token_bytes


def read(folder: Path, split: str) -> Split:
    """Reads the manifest and checks it against the files' sizes; reads none of their bytes."""
    path = folder / "manifest.json"
    details = read_details(path)
    try:
        found = parse(folder, details, split)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ShardError(f"{path}: not a manifest of {SCHEMA}: {type(error).__name__}: {error}") from error
    check(found, path)
    return found


def read_details(path: Path) -> dict[str, Any]:
    try:
        details = json.loads(path.read_text(encoding="utf-8"))["details"]
    except FileNotFoundError as error:
        raise ShardError(f"{path}: no such file; expected a folder that the stage `shard` of genomill made") from error
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ShardError(f"{path}: not a manifest of {SCHEMA}: {type(error).__name__}: {error}") from error
    contexts = details.get("contexts") if isinstance(details, dict) else None
    if contexts:
        folders = ", ".join(f"context-{context}" for context in contexts)
        raise ShardError(f"{path}: holds a shard set for each context; open one of its folders: {folders}")
    schema = details.get("schema") if isinstance(details, dict) else None
    if schema != SCHEMA:
        raise ShardError(f"{path}: schema is {schema!r}, and this version of genomill reads {SCHEMA!r}")
    if details.get("profile") != "mapped":
        raise ShardError(f"{path}: profile is {details.get('profile')!r}, expected 'mapped'")
    return dict(details)


def parse(folder: Path, details: dict[str, Any], name: str) -> Split:
    splits = details["splits"]
    if name not in splits:
        raise ShardError(f"{folder}: no split {name!r}; it has {', '.join(splits)}")
    split = splits[name]
    return Split(
        folder=folder,
        name=name,
        context=int(details["context"]),
        token_bytes=int(details["token_bytes"]),
        vocabulary_size=int(details["vocabulary_size"]),
        special={token: int(id_) for token, id_ in details["special"].items()},
        tokenizer_path=folder / details["tokenizer"],
        rows=int(split["rows"]),
        tokens=int(split["tokens"]),
        bases=int(split["bases"]),
        padding=int(split["padding"]),
        files=tuple(parse_file(folder, file) for file in split["files"]),
    )


def parse_file(folder: Path, file: dict[str, Any]) -> ShardFile:
    pages = tuple(Page(int(page["offset"]), int(page["rows"])) for page in file["pages"])
    return ShardFile(folder / file["path"], int(file["rows"]), int(file["bytes"]), file["blake3"], pages)


def check(split: Split, manifest: Path) -> None:
    """Counts that agree, pages that lie in their files, and files of the promised size."""
    if split.token_bytes not in TOKEN_BYTES:
        raise ShardError(f"{manifest}: token_bytes is {split.token_bytes}, expected 2 or 4")
    if split.context < 1:
        raise ShardError(f"{manifest}: context is {split.context}, expected at least 1")
    rows = sum(file.rows for file in split.files)
    if rows != split.rows:
        raise ShardError(f"{manifest}: split {split.name!r} has {split.rows} rows, but its files have {rows}")
    for file in split.files:
        check_pages(file, split.row_bytes, manifest)
        check_size(file)


def check_pages(file: ShardFile, row_bytes: int, manifest: Path) -> None:
    rows = sum(page.rows for page in file.pages)
    if rows != file.rows:
        raise ShardError(f"{manifest}: {file.path.name} has {file.rows} rows, but its pages have {rows}")
    for number, page in enumerate(file.pages):
        end = page.offset + page.rows * row_bytes
        if page.offset < 0 or page.rows < 0 or end > file.bytes:
            raise ShardError(
                f"{manifest}: {file.path.name}: page {number} takes bytes {page.offset}..{end}, "
                f"outside of the file's {file.bytes} bytes"
            )
        if page.offset % ALIGNMENT:
            raise ShardError(
                f"{manifest}: {file.path.name}: page {number} begins at byte {page.offset}, "
                f"expected a multiple of {ALIGNMENT}"
            )


def check_size(file: ShardFile) -> None:
    try:
        size = os.stat(file.path).st_size
    except OSError as error:
        raise ShardError(f"{file.path}: {error.strerror}; the manifest lists it with {file.bytes} bytes") from error
    if size != file.bytes:
        raise ShardError(f"{file.path}: size is {size} bytes, and the manifest says {file.bytes}")
