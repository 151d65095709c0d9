"""Exports of the folder that the genomill command made, read by the trainers' own readers.

GENOMILL_SHARDS names the folder, GENOMILL the command. Needs megatron-core, ai2-olmo-core, mosaicml-streaming, datasets and
numpy, each for its own tests; what is not installed is skipped.
"""

import csv
import gzip
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import genomill

FOLDER, COMMAND = os.environ.get("GENOMILL_SHARDS"), os.environ.get("GENOMILL")
pytestmark = pytest.mark.skipif(
    not (FOLDER and COMMAND), reason="GENOMILL_SHARDS and GENOMILL are not set: no folder to export, or no command"
)


def details():
    return json.loads((Path(FOLDER) / "manifest.json").read_text())["details"]


def splits():
    return [name for name, split in details()["splits"].items() if split["rows"]] if FOLDER else []


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports once per format; returns the folder."""
    base, done = tmp_path_factory.mktemp("exports"), {}

    def export(to, *options):
        key = (to, *options)
        if key not in done:
            done[key] = base / "-".join(key).replace("--", "")
            run = [COMMAND, "shards", "export", FOLDER, "--to", to, "-o", str(done[key]), *options]
            subprocess.run(run, check=True, capture_output=True, text=True)
        return done[key]

    return export


def rows(split):
    with genomill.open(FOLDER, split=split) as shards:
        return shards[:].copy()


def without_padding(split):
    """All tokens of a split in order, without the padding at the ends of rows."""
    tokens, pad = rows(split), details()["special"]["[PAD]"]
    return np.concatenate([row[: len(row) - int(np.cumprod(row[::-1] == pad).sum())] for row in tokens])


def test_an_export_says_what_it_was_made_from(exported):
    folder = exported("npy")
    made = json.loads((folder / "manifest.json").read_text())
    source = json.loads((Path(FOLDER) / "manifest.json").read_text())
    assert made["inputs"][0]["content"] == source["content"]
    assert (folder / "tokenizer.json").read_bytes() == (Path(FOLDER) / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("split", splits())
def test_numpy_reads_npy(exported, split):
    found = np.load(exported("npy") / f"{split}.npy", mmap_mode="r")
    assert np.array_equal(found, rows(split)) and found.dtype == rows(split).dtype


@pytest.mark.parametrize("split", splits())
def test_megatron_reads_its_indexed_dataset(exported, split):
    module = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    dataset = module.IndexedDataset(str(exported("megatron") / split))
    found = np.concatenate([dataset[i] for i in range(len(dataset))])
    assert np.array_equal(found, without_padding(split))
    assert dataset.document_indices.tolist() == list(range(len(dataset) + 1))
    assert len(dataset) == len(documents(exported("olmo-core"), split)) > 1


def documents(folder, split):
    with gzip.open(folder / f"{split}-00000.csv.gz", "rt", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("split", splits())
def test_olmo_core_reads_its_memmap(exported, split, tmp_path):
    data = pytest.importorskip("olmo_core.data")
    context, special, path = details()["context"], details()["special"], exported("olmo-core") / f"{split}-00000.npy"
    tokens = without_padding(split)
    dtype = data.NumpyDatasetDType.uint16 if tokens.dtype.itemsize == 2 else data.NumpyDatasetDType.uint32
    eos = special.get("[EOS]", special["[SEP]"])
    dataset = data.NumpyFSLDataset(
        path, sequence_length=context, pad_token_id=special["[PAD]"], eos_token_id=eos,
        vocab_size=details()["vocabulary_size"], dtype=dtype.as_np_dtype(),
    )  # fmt: skip
    dataset.work_dir = tmp_path
    dataset.prepare()
    found = np.concatenate([dataset[i]["input_ids"].numpy() for i in range(len(dataset))])
    assert len(dataset) == len(tokens) // context
    assert np.array_equal(found, tokens[: len(found)])


@pytest.mark.parametrize("split", splits())
def test_olmo_core_finds_the_documents(exported, split):
    utils = pytest.importorskip("olmo_core.data.utils")
    path, tokens = exported("olmo-core") / f"{split}-00000.npy", without_padding(split)
    found = list(utils.iter_document_indices(path, use_array_if_local=False, dtype=tokens.dtype.type))
    assert found[0][0] == 0 and found[-1][1] == len(tokens)
    assert all(before[1] == after[0] for before, after in zip(found, found[1:]))


@pytest.mark.parametrize("split", splits())
def test_documents_spell_the_bases_that_they_name(exported, split):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(exported("olmo-core") / "tokenizer.json"))
    special, tokens = set(details()["special"].values()), without_padding(split)
    bases = 0
    for start, end, name, _source, _row in documents(exported("olmo-core"), split):
        spelled = [tokenizer.id_to_token(t) for t in tokens[int(start) : int(end)].tolist() if t not in special]
        first, last = name.split(":")[-2].split("-")
        assert sum(map(len, spelled)) == int(last) - int(first), name
        bases += int(last) - int(first)
    assert bases == details()["splits"][split]["bases"]


@pytest.mark.parametrize("options", [(), ("--zstd",)], ids=["plain", "zstd"])
@pytest.mark.parametrize("split", splits())
def test_mosaic_reads_mds(exported, split, options):
    streaming = pytest.importorskip("streaming")
    folder = exported("mds", *options)
    dataset = streaming.LocalDataset(str(folder), split=split) if not options else unpacked(streaming, folder, split)
    found = np.stack([dataset[i]["tokens"] for i in range(len(dataset))])
    assert np.array_equal(found, rows(split)) and found.dtype == rows(split).dtype


def unpacked(streaming, folder, split):
    """StreamingDataset unpacks what it copies from a remote folder."""
    streaming.base.util.clean_stale_shared_memory()
    cache = folder.parent / f"cache-{split}"
    return streaming.StreamingDataset(remote=str(folder), local=str(cache), split=split, batch_size=1)


@pytest.mark.parametrize("split", splits())
def test_hugging_face_reads_parquet(exported, split, tmp_path):
    datasets = pytest.importorskip("datasets")
    dataset = datasets.load_dataset(str(exported("hf")), split=split, cache_dir=str(tmp_path))
    found = np.array(dataset.with_format("numpy")["input_ids"][:])
    assert np.array_equal(found, rows(split))
    assert dataset.features["input_ids"].feature.dtype == rows(split).dtype.name
