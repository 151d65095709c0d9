"""Writes a small shard folder as schemas/shard.md describes it, with pyarrow and without genomill."""

import json

import numpy as np
import pyarrow as pa
from pyarrow import parquet

SEGMENT = pa.struct(
    [
        ("token_start", pa.uint32()),
        ("token_end", pa.uint32()),
        ("record", pa.string()),
        ("source", pa.string()),
        ("start", pa.uint64()),
        ("end", pa.uint64()),
        ("strand", pa.string()),
    ]
)
CONTEXT = 32
VOCABULARY = {2: 60_000, 4: 1_000_000}


def make(folder, token_bytes=2, rows=(7, 5), seed=3):
    """A folder with a train split of `rows` rows per file and an empty test split; returns its tokens."""
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}")
    tokens = random_tokens(sum(rows), token_bytes, seed)
    files, first = [], 0
    for number, count in enumerate(rows):
        files.append(write_file(folder, f"train-{number:05}.parquet", tokens[first : first + count], first))
        first += count
    details = {
        "schema": "genomill/shard/1",
        "profile": "mapped",
        "context": CONTEXT,
        "token_bytes": token_bytes,
        "vocabulary_size": VOCABULARY[token_bytes],
        "special": {"[PAD]": 0, "[BOS]": 1},
        "tokenizer": "tokenizer.json",
        "splits": {"train": split(tokens, files), "test": split(tokens[:0], [])},
    }
    (folder / "manifest.json").write_text(json.dumps({"schema": "genomill/artifact/1", "details": details}))
    return tokens


def random_tokens(rows, token_bytes, seed):
    dtype = {2: "<u2", 4: "<u4"}[token_bytes]
    return np.random.default_rng(seed).integers(2, VOCABULARY[token_bytes], (rows, CONTEXT)).astype(dtype)


def split(tokens, files):
    return {"rows": len(tokens), "tokens": tokens.size, "bases": tokens.size * 4, "padding": 0, "files": files}


def segments(row):
    """Two segments per row, the second on the other strand."""
    half, start = CONTEXT // 2, row * 100
    forward = {"token_start": 1, "token_end": half, "record": "chrI", "source": "yeast", "start": start}
    reverse = {"token_start": half, "token_end": CONTEXT, "record": "chrII", "source": "reads", "start": start + 7}
    return [{**forward, "end": start + 50, "strand": "+"}, {**reverse, "end": start + 90, "strand": "-"}]


def write_file(folder, name, tokens, first_row):
    """One Parquet file with two row groups of one token page each; returns its entry in the manifest.

    pyarrow does not align pages, so a column before the tokens is filled until their pages begin at multiples of 64.
    """
    path, middle = folder / name, len(tokens) // 2
    groups = [table(tokens[:middle], first_row), table(tokens[middle:], first_row + middle)]
    padding = [0, 0]
    for group in range(2):
        for padding[group] in range(64):
            write_parquet(path, groups, padding)
            pages = find_pages(path, tokens.itemsize * CONTEXT)
            if pages[group]["offset"] % 64 == 0:
                break
    data = path.read_bytes()
    entry = {"path": name, "rows": len(tokens), "bytes": len(data), "blake3": blake3_or_none(data)}
    return {**entry, "pages": pages}


def table(tokens, first_row):
    width = tokens.itemsize * CONTEXT
    column = pa.array([row.tobytes() for row in tokens], pa.binary(width))
    provenance = pa.array([segments(first_row + row) for row in range(len(tokens))], pa.list_(SEGMENT))
    fields = [pa.field("tokens", pa.binary(width), nullable=False), pa.field("segments", provenance.type)]
    return pa.table([column, provenance], schema=pa.schema(fields))


def write_parquet(path, groups, padding):
    padded = [
        group.add_column(0, "padding", pa.array([b"x" * size] + [b""] * (len(group) - 1)))
        for group, size in zip(groups, padding)
    ]
    options = {"use_dictionary": False, "compression": "none", "write_statistics": False}
    with parquet.ParquetWriter(path, padded[0].schema, **options) as writer:
        for group in padded:
            writer.write_table(group)


def find_pages(path, width):
    """Where the bytes of the tokens begin: at the end of the column's one page."""
    metadata = parquet.read_metadata(path)
    pages = []
    for group in range(metadata.num_row_groups):
        column = metadata.row_group(group).column(1)
        end = column.data_page_offset + column.total_compressed_size
        pages.append({"offset": end - column.num_values * width, "rows": column.num_values})
    return pages


def blake3_or_none(data):
    try:
        from blake3 import blake3
    except ImportError:
        return "0" * 64
    return blake3(data).hexdigest()
