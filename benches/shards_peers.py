"""Reading random rows of a shard folder from Python, beside the readers of other trainers, on the same rows.

    genomill shards export FOLDER --to npy -o EXPORTS/npy        # likewise --to mds, hf, megatron
    python benches/shards_peers.py FOLDER EXPORTS

Needs numpy; each peer (torch, datasets, mosaicml-streaming, megatron-core) is left out, and said so, where it is not installed.
Every reader first has to give the same tokens, and the maps are read through once, so that no page is read for the first
time. Then all take turns over rounds of the same random rows; figures are
medians of processor time, and what counts is the median of a round's ratios.
"""

import os
import sys
import time
from statistics import median

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))
import genomill  # noqa: E402
from genomill.order import Order  # noqa: E402
from genomill.share import Share  # noqa: E402

ROUNDS, SINGLE, BATCHES, BATCH = 11, 1000, 60, 64
os.environ["HF_HUB_OFFLINE"] = "1"


def nano_gpt(path, context):
    """As nanoGPT's get_batch: one row at a time to int64 tensors, then torch.stack."""
    import torch

    data = np.memmap(path, dtype=np.uint16, mode="r", offset=header(path))
    view = torch.from_numpy

    def rows(indices):
        return torch.stack([view(data[i * context : (i + 1) * context].astype(np.int64)) for i in indices])

    return rows


def header(path):
    return np.load(path, mmap_mode="r").offset


def readers(folder, exports):
    """Per reader a function of one row, and one of a list of rows and a buffer of int64; None where it has none."""
    shards = genomill.open(folder)
    array = np.load(f"{exports}/npy/train.npy", mmap_mode="r")
    yield "genomill", lambda i: shards[i], lambda rows, out: shards.batch(rows, out=out)

    def gathered(rows, out):
        out[...] = array[rows]

    yield "numpy memmap", lambda i: array[i], gathered
    plain = np.asarray(array)
    # Reads both maps through.
    assert int(plain.max()) == max(int(shards[at : at + 1000].max()) for at in range(0, len(shards), 1000))

    # What a training loop wants in the end: a copy in int64.
    yield "genomill, row to int64", lambda i: shards[i].astype(np.int64), one_by_one(lambda i: shards[i])

    def gathered_plain(rows, out):
        out[...] = plain[rows]

    yield "numpy array over the map", lambda i: plain[i], gathered_plain
    yield from attempt("nanoGPT (memmap, torch.stack)", lambda: nano(exports, shards.context))
    yield from attempt("Megatron IndexedDataset", lambda: megatron(exports))
    yield from attempt("HF datasets (numpy format)", lambda: hugging_face(exports))
    yield from attempt("MDS (LocalDataset)", lambda: mosaic(exports))


def attempt(name, make):
    try:
        yield (name, *make())
    except ImportError as error:
        print(f"{name} is left out: {error}")


def one_by_one(row):
    def batch(rows, out):
        for place, i in enumerate(rows):
            out[place] = row(int(i))

    return batch


def nano(exports, context):
    rows = nano_gpt(f"{exports}/npy/train.npy", context)

    def batch(indices, out):
        out[...] = rows(indices.tolist()).numpy()

    return (lambda i: rows([i])[0].numpy()), batch


def megatron(exports):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    dataset = IndexedDataset(f"{exports}/megatron/train")
    return (lambda i: dataset[i]), one_by_one(lambda i: dataset[i])


def hugging_face(exports):
    import datasets

    cache = f"{exports}/cache"
    dataset = datasets.load_dataset(f"{exports}/hf", split="train", cache_dir=cache).with_format("numpy")

    def batch(rows, out):
        out[...] = dataset[rows.tolist()]["input_ids"]

    return (lambda i: dataset[i]["input_ids"]), batch


def mosaic(exports):
    from streaming import LocalDataset

    dataset = LocalDataset(f"{exports}/mds", split="train")
    return (lambda i: dataset[i]["tokens"]), one_by_one(lambda i: dataset[i]["tokens"])


def timed(work, count):
    start = time.process_time()
    work()
    return (time.process_time() - start) / count


def check(contenders, rows, context):
    for name, row, batch in contenders:
        out = np.empty((len(rows), context), dtype=np.int64)
        batch(rows, out)
        expected = np.empty_like(out)
        contenders[0][2](rows, expected)
        same = np.array_equal(out, expected) and np.array_equal(row(int(rows[0])), expected[0])
        if not same:
            sys.exit(f"{name} gives other tokens")


def rounds(contenders, measure):
    """Seconds per row by contender, round by round."""
    found = {name: [] for name, *_ in contenders}
    for number in range(ROUNDS + 1):
        for name, *functions in contenders:
            seconds = measure(number, *functions)
            if number:
                found[name].append(seconds)
    return found


def show(title, found):
    ours = found["genomill"]
    print(f"\n| {title} | rows/s | genomill is x faster |\n|---|---|---|")
    for name, seconds in found.items():
        ratio = median(theirs / own for theirs, own in zip(seconds, ours))
        print(f"| {name} | {1 / median(seconds):,.0f} | {ratio:.2f} |")


def resume(rows):
    """The first batch of a shuffled stream at position 0 and at 10^9."""
    for name, order in (("rows", Order(7, rows)), ("blocks of 256", Order(7, rows, 256))):
        found = {first: [] for first in (0, 10**9)}
        for _ in range(50):
            for first, seconds in found.items():
                seconds.append(timed(lambda first=first: next(Share(order, first, 0, 1, BATCH).rows()), 1))
        near, far = (median(seconds) * 1e6 for seconds in found.values())
        print(f"first batch of 64, shuffled by {name}: {near:.0f} us at position 0, {far:.0f} us at 10^9")


def main(folder, exports):
    shards = genomill.open(folder)
    count, context = len(shards), shards.context
    contenders = list(readers(folder, exports))
    draw = np.random.default_rng(1)
    check(contenders, draw.integers(0, count, 200), context)
    singles = [draw.integers(0, count, SINGLE).tolist() for _ in range(ROUNDS + 1)]
    batches = [draw.integers(0, count, (BATCHES, BATCH)) for _ in range(ROUNDS + 1)]
    out = np.empty((BATCH, context), dtype=np.int64)

    def single(number, row, _):
        return timed(lambda: [row(i) for i in singles[number]], SINGLE)

    def batch(number, _, gather):
        return timed(lambda: [gather(rows, out) for rows in batches[number]], BATCHES * BATCH)

    print(f"{count} rows of {context} tokens, {shards.dtype}")
    show("single random rows", rounds(contenders, single))
    show(f"batches of {BATCH} into int64", rounds(contenders, batch))
    opened = [timed(lambda: genomill.open(folder), 1) for _ in range(20)]
    print(f"\nopening the folder: {median(opened) * 1e3:.2f} ms")
    resume(count)


if __name__ == "__main__":
    main(*sys.argv[1:])
