"""Reads the folder that the genomill command made, by four readers. `make test` says where it is (GENOMILL_SHARDS)."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import genomill

FOLDER = os.environ.get("GENOMILL_SHARDS")
pytestmark = pytest.mark.skipif(not FOLDER, reason="GENOMILL_SHARDS is not set: no folder that genomill made")
STRANDS = {"+", "-"}


def details():
    return json.loads((Path(FOLDER) / "manifest.json").read_text())["details"]


def splits():
    """The names to test; none without a folder, so that a test of its own can say what is wrong."""
    return list(details()["splits"]) if FOLDER and (Path(FOLDER) / "manifest.json").exists() else []


@pytest.fixture(scope="module", params=splits())
def shards(request):
    return genomill.open(FOLDER, split=request.param)


def paths(shards):
    files = details()["splits"][shards.split]["files"]
    return [str(Path(FOLDER) / file["path"]) for file in files]


def decode(rows, shards):
    """Rows as Parquet readers give them, bytes each, as an array of tokens."""
    return np.frombuffer(b"".join(rows), shards.dtype).reshape(-1, shards.context)


def expect_same(rows, shards):
    assert np.array_equal(decode(rows, shards), shards.batch(np.arange(len(shards))))


def test_there_is_something_to_read():
    assert len(genomill.open(FOLDER, split="train")) > 0


def test_pyarrow_gives_the_same_tokens(shards):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [row for path in paths(shards) for row in parquet.read_table(path).column("tokens").to_pylist()]
    expect_same(rows, shards)


def test_duckdb_gives_the_same_tokens(shards):
    duckdb = pytest.importorskip("duckdb")
    query = "select tokens from read_parquet(?, file_row_number=true) order by file_row_number"
    rows = [row for path in paths(shards) for (row,) in duckdb.execute(query, [path]).fetchall()]
    expect_same(rows, shards)


def test_polars_gives_the_same_tokens(shards):
    polars = pytest.importorskip("polars")
    rows = [row for path in paths(shards) for row in polars.read_parquet(path)["tokens"].to_list()]
    expect_same(rows, shards)


def test_pages_are_aligned_and_whole(shards):
    verified = shards.verify()
    assert verified.rows == len(shards)


def test_counts_agree_with_the_rows(shards):
    tokens = shards.batch(np.arange(len(shards)))
    padding = int((tokens == shards.special["[PAD]"]).sum())
    assert padding == shards.padding
    assert shards.tokens == tokens.size - padding


def test_provenance_lies_within_its_rows(shards):
    bases = 0
    for row in range(len(shards)):
        expect_ordered(shards.provenance(row), shards.context)
        bases += sum(segment.end - segment.start for segment in shards.provenance(row))
    assert bases == shards.bases


def expect_ordered(segments, context):
    """Segments that follow one another, each with tokens, bases, a record, a source and a strand."""
    end = 0
    for segment in segments:
        assert end <= segment.token_start < segment.token_end <= context
        assert segment.start < segment.end
        assert segment.record and segment.source and segment.strand in STRANDS
        end = segment.token_end


def test_tokens_spell_as_many_bases_as_provenance_says(shards):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(shards.tokenizer_path))
    assert tokenizer.get_vocab_size() == shards.vocabulary_size
    for row in range(0, len(shards), max(1, len(shards) // 200)):
        for segment in shards.provenance(row):
            ids = shards[row][segment.token_start : segment.token_end].tolist()
            spelled = "".join(tokenizer.id_to_token(id_) for id_ in ids)
            assert len(spelled) == segment.end - segment.start, (row, segment)
