"""What genomill.ShardSet promises, over folders that were written without genomill."""

import gc
import json
import multiprocessing
import pickle
import shutil

import numpy as np
import pytest
import shard_folder

import genomill
from genomill import Segment, ShardError


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    """A folder and the tokens in it, by the bytes per token."""
    base = tmp_path_factory.mktemp("originals")
    return {width: (base / str(width), shard_folder.make(base / str(width), width)) for width in (2, 4)}


@pytest.fixture(params=[2, 4], ids=["uint16", "uint32"])
def made(request, originals, tmp_path):
    """A folder of one's own and the tokens in it."""
    original, tokens = originals[request.param]
    return shutil.copytree(original, tmp_path / "shards"), tokens


@pytest.fixture
def folder(originals, tmp_path):
    return shutil.copytree(originals[2][0], tmp_path / "shards")


def edit(folder, change):
    """Applies `change` to the manifest's details."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest["details"])
    path.write_text(json.dumps(manifest))


def test_rows_are_the_written_tokens(made):
    folder, tokens = made
    shards = genomill.open(folder)
    assert len(shards) == len(tokens) == 12
    assert shards.dtype == tokens.dtype
    for row in range(-12, 12):
        assert np.array_equal(shards[row], tokens[row])
    assert all(np.array_equal(row, wanted) for row, wanted in zip(shards, tokens))
    assert len(list(shards)) == 12


@pytest.mark.parametrize("row", [12, -13])
def test_rows_outside_are_refused(folder, row):
    shards = genomill.open(folder)
    with pytest.raises(IndexError, match=f"row {row} of 12"):
        shards[row]
    with pytest.raises(IndexError, match=f"row {row} of 12"):
        shards.batch([0, row])


def test_a_row_is_a_view_of_the_file(folder):
    shards = genomill.open(folder)
    row = shards[3]
    assert not row.flags.owndata and not row.flags.writeable
    assert np.shares_memory(row, shards[3])
    with pytest.raises(ValueError, match="read-only"):
        row[0] = 1


@pytest.mark.parametrize(
    ("start", "stop", "step"),
    [(0, 3, 1), (0, 12, 1), (2, 9, 1), (None, None, None), (None, None, -1), (1, 11, 3), (-2, None, None), (5, 5, 1)],
)
def test_slices(made, start, stop, step):
    folder, tokens = made
    found = genomill.open(folder)[start:stop:step]
    assert np.array_equal(found, tokens[start:stop:step])
    assert found.dtype == tokens.dtype and found.shape[1] == shard_folder.CONTEXT


def test_a_slice_within_a_page_is_a_view(folder):
    shards = genomill.open(folder)
    assert np.shares_memory(shards[0:3], shards[1])
    assert not np.shares_memory(shards[0:4], shards[1])


@pytest.mark.parametrize("indices", [[0], [11, 0, 5, 5, -1], [6, 7], list(range(12)), [], np.array([3, 1], np.uint8)])
def test_batches(made, indices):
    folder, tokens = made
    found = genomill.open(folder).batch(indices)
    assert np.array_equal(found, tokens[np.asarray(indices, dtype=int)])
    assert found.dtype == tokens.dtype and found.flags.writeable
    assert found.shape == (len(indices), shard_folder.CONTEXT)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_batches_into_an_array_of_another_type(made, monkeypatch, one_by_one):
    if one_by_one:
        monkeypatch.setattr("genomill.shards.Gatherer._whole", lambda *_: None)
    folder, tokens = made
    shards = genomill.open(folder)
    out = np.zeros((4, shard_folder.CONTEXT), np.int64)
    assert shards.batch([11, 0, 6, -2], out=out) is out
    assert np.array_equal(out, tokens[[11, 0, 6, 10]])
    assert np.array_equal(shards.batch(range(12)), tokens)
    assert shards.batch([], out=out[:0]).shape == (0, shard_folder.CONTEXT)


@pytest.mark.parametrize("out", [np.zeros((2, 32), np.int64), np.zeros((1, 31), np.int64), np.zeros((1, 32), "S2"), np.zeros((1, 32), np.int16)])
def test_batches_into_an_array_that_does_not_fit_are_refused(folder, out):
    with pytest.raises(TypeError, match="out has shape .* expected \\(1, 32\\) and integers that hold 59999"):
        genomill.open(folder).batch([0], out=out)


def test_indices_must_be_integers(folder):
    with pytest.raises(TypeError, match="expected a list of integers"):
        genomill.open(folder).batch([0.5])


def test_what_the_manifest_says(folder):
    shards = genomill.open(folder)
    assert (shards.context, shards.vocabulary_size, shards.split) == (32, 60_000, "train")
    assert (shards.tokens, shards.bases, shards.padding) == (12 * 32, 12 * 32 * 4, 0)
    assert shards.special == {"[PAD]": 0, "[BOS]": 1}
    assert shards.tokenizer_path == folder / "tokenizer.json"
    assert "12 rows of 32 uint16" in repr(shards)


def test_a_split_may_be_empty(folder):
    shards = genomill.open(folder, split="test")
    assert len(shards) == 0 and list(shards) == []
    assert shards.batch([]).shape == shards[:].shape == (0, 32)
    assert shards.verify().rows == 0


def test_provenance_follows_the_rows(folder):
    shards = genomill.open(folder)
    for row in range(12):
        assert shards.provenance(row) == [Segment(**segment) for segment in shard_folder.segments(row)]
    assert shards.provenance(-1) == shards.provenance(11)
    with pytest.raises(IndexError):
        shards.provenance(12)


def test_pickling_opens_the_files_anew(made, monkeypatch, tmp_path):
    _folder, tokens = made
    monkeypatch.chdir(tmp_path)
    shards = genomill.open("shards")
    data = pickle.dumps(shards)
    assert len(data) < 1000
    monkeypatch.chdir("/")
    assert np.array_equal(pickle.loads(data)[7], tokens[7])


def row_sums(shards, rows, answers):
    answers.put([int(shards[row].astype(np.int64).sum()) for row in rows])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_the_same(made, method):
    folder, tokens = made
    shards = genomill.open(folder)
    shards[0]
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    worker = context.Process(target=row_sums, args=(shards, [0, 9], answers))
    worker.start()
    assert answers.get(timeout=60) == [int(tokens[row].astype(np.int64).sum()) for row in (0, 9)]
    worker.join()


def test_closing_ends_the_reading_but_not_the_views(made):
    folder, tokens = made
    with genomill.open(folder) as shards:
        row = shards[2]
    gc.collect()
    assert np.array_equal(row, tokens[2])
    with pytest.raises(ShardError, match="closed"):
        shards[2]
    with pytest.raises(ShardError, match="closed"):
        shards.batch([2])


def test_verify_finds_nothing_wrong(folder):
    assert genomill.open(folder).verify()[:3] == (
        2,
        sum(path.stat().st_size for path in folder.glob("*.parquet")),
        12,
    )


def test_verify_finds_a_flipped_byte(folder):
    pytest.importorskip("blake3")
    path = folder / "train-00001.parquet"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"train-00001\.parquet: blake3 is"):
        genomill.open(folder).verify()
    with pytest.raises(ShardError, match="blake3 is"):
        genomill.open(folder, verify="full")


def test_opening_checks_as_much_as_it_is_asked_to(folder):
    assert len(genomill.open(folder, verify="full")) == len(genomill.open(folder, verify="sizes"))
    with pytest.raises(ValueError, match="verify is 'some', expected 'sizes' or 'full'"):
        genomill.open(folder, verify="some")


def test_a_folder_of_several_contexts_says_which_there_are(folder):
    (folder / "manifest.json").write_text('{"details": {"contexts": [512, 64]}}')
    with pytest.raises(ShardError, match="open one of its folders: context-512, context-64"):
        genomill.open(folder)


def test_verify_finds_a_token_above_the_vocabulary(folder):
    shards = genomill.open(folder)
    offset = json.loads((folder / "manifest.json").read_text())["details"]["splits"]["train"]["files"][1]["pages"][1]
    at = offset["offset"] + 2 * 40
    path = folder / "train-00001.parquet"
    data = bytearray(path.read_bytes())
    data[at : at + 2] = (65_000).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(ShardError, match=f"train-00001.parquet: byte {at}: token is 65000, expected below"):
        shards.verify()


def split_of(details):
    return details["splits"]["train"]


def first_page(details):
    return split_of(details)["files"][0]["pages"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema="genomill/shard/2"), "schema is 'genomill/shard/2', and this .* 'genomill/shard/1'"),
        (lambda d: d.pop("schema"), "schema is None"),
        (lambda d: d.update(profile="archive"), "profile is 'archive', expected 'mapped'"),
        (lambda d: d.update(token_bytes=3), "token_bytes is 3, expected 2 or 4"),
        (lambda d: d.update(context=0), "context is 0"),
        (lambda d: d.pop("context"), "KeyError: 'context'"),
        (lambda d: d.update(splits=[]), "no split 'train'"),
        (lambda d: split_of(d).update(rows=13), "'train' has 13 rows, but its files have 12"),
        (lambda d: split_of(d).update(files=None), "TypeError"),
        (lambda d: first_page(d).update(rows=1), "train-00000.parquet has 7 rows, but its pages have 5"),
        (lambda d: first_page(d).update(offset=1 << 40), "page 0 takes bytes 1099511627776.*outside of the file's"),
        (lambda d: first_page(d).update(offset=-64), "page 0 takes bytes -64"),
        (lambda d: first_page(d).update(offset=66), "page 0 begins at byte 66, expected a multiple of 64"),
    ],
)
def test_a_wrong_manifest_is_refused(folder, change, message):
    edit(folder, change)
    with pytest.raises(ShardError, match=message):
        genomill.open(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"details": 3}', '{"details": {}}', "\xff"])
def test_what_is_no_manifest_is_refused(folder, text):
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ShardError, match=r"manifest\.json: "):
        genomill.open(folder)


def test_what_is_missing_is_named(folder):
    with pytest.raises(ShardError, match=r"no split 'tset'; it has train, test"):
        genomill.open(folder, split="tset")
    (folder / "train-00001.parquet").unlink()
    with pytest.raises(ShardError, match=r"train-00001\.parquet: No such file or directory; the manifest lists it"):
        genomill.open(folder)
    shutil.rmtree(folder)
    with pytest.raises(ShardError, match=r"manifest\.json: no such file"):
        genomill.open(folder)


def test_a_truncated_file_is_refused(folder):
    path = folder / "train-00000.parquet"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ShardError, match=f"size is {size - 1} bytes, and the manifest says {size}"):
        genomill.open(folder)


def test_a_file_truncated_after_opening_is_refused(folder):
    shards = genomill.open(folder)
    path = folder / "train-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ShardError, match="size is"):
        shards[0]
