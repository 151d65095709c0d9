"""The other trainers and encoders that Python installs, on the pieces of `cargo bench --bench tokenizer`.

    python -m venv peers && peers/bin/pip install tokenizers rustbpe tiktoken
    peers/bin/python benches/tokenizer_peers.py train  genome.fa.gz 4096 1000 10
    peers/bin/python benches/tokenizer_peers.py encode genome.fa.gz tokenizer.json 10

`train` compares the merges with those of tokenizer-SIZE-PIECE.json, which the bench writes to the folder for temporary files; `encode` compares ids.
Seconds are of processor time, memory is the peak of the process.
"""

import gzip
import json
import os
import re
import resource
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"


def genome(path):
    with (gzip.open if path.endswith("gz") else open)(path, "rt") as file:
        return "".join(line.strip() for line in file if not line.startswith(">")).upper()


def pieces(text, size):
    return [text[at : at + size] for at in range(0, len(text), size)]


def timed(name, work):
    start = time.process_time()
    result = work()
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return name, result, seconds, peak


def special_tokens():
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[BOS]", "[EOS]"]


def train(path, size, piece, megabases):
    text = genome(path)[: megabases * 1_000_000]
    words = [run for part in pieces(text, piece) for run in re.findall("[ACGT]+", part)]
    ours = json.load(open(os.path.join(tempfile.gettempdir(), f"tokenizer-{size}-{piece}.json")))
    ours = [a + b for a, b in ours["model"]["merges"]]

    def rust_bpe():
        import rustbpe

        tokenizer = rustbpe.Tokenizer()
        tokenizer.train_from_iterator(iter(words), 256 + len(ours), pattern="[ACGT]+")
        ranks = sorted(tokenizer.get_mergeable_ranks(), key=lambda item: item[1])
        return [bytes(token).decode() for token, rank in ranks if rank >= 256]

    def hugging_face():
        from tokenizers import Tokenizer, models, trainers

        tokenizer = Tokenizer(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=special_tokens(),
            initial_alphabet=list("ABCDGHKMNRSTUVWY"),
            show_progress=False,
        )
        tokenizer.train_from_iterator(words, trainer)
        merges = json.loads(tokenizer.to_str())["model"]["merges"]
        return ["".join(merge) if isinstance(merge, list) else merge.replace(" ", "") for merge in merges]

    for name, work in [("rustbpe", rust_bpe), ("Hugging Face", hugging_face)]:
        name, merges, seconds, peak = timed(name, work)
        same = sum(1 for a, b in zip(merges, ours) if a == b)
        print(f"| {name} | {seconds:.2f} CPU s | {peak:.0f} MB | {same} of {len(ours)} merges equal, in order |")


def encode(path, tokenizer_path, megabases):
    import tiktoken
    from tokenizers import Tokenizer

    text = genome(path)[-megabases * 1_000_000 :]
    peer = Tokenizer.from_file(tokenizer_path)
    model = json.load(open(tokenizer_path))["model"]
    merges = [merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"]]
    ranks = {bytes([byte]): byte for byte in range(256)}
    ranks |= {(a + b).encode(): 256 + rank for rank, (a, b) in enumerate(merges)}
    ids = {rank: model["vocab"].get(token.decode("latin-1")) for token, rank in ranks.items()}
    open_ai = tiktoken.Encoding("dna", pat_str="[ACGT]+|.", mergeable_ranks=ranks, special_tokens={})
    for size in [1_000, 10_000, 100_000]:
        parts = pieces(text, size)
        _, theirs, seconds, _ = timed("tiktoken", lambda: [open_ai.encode_ordinary(part) for part in parts])
        check = parts[:100]
        equal = all([ids[t] for t in a] == peer.encode(part).ids for a, part in zip(theirs, check))
        print(f"| {size} | tiktoken | {len(text) / 1e6 / seconds:.2f} MB/s | ids equal to Hugging Face's: {equal} |")
        _, _, seconds, _ = timed("HF", lambda: peer.encode_batch(parts, add_special_tokens=False))
        print(f"| {size} | Hugging Face encode_batch | {len(text) / 1e6 / seconds:.2f} MB/s | |")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["train", path, size, piece, megabases]:
            train(path, int(size), int(piece), int(megabases))
        case ["encode", path, tokenizer, megabases]:
            encode(path, tokenizer, int(megabases))
        case _:
            sys.exit(__doc__)
