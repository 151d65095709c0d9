"""The time of a training step beside PyTorch running transformers' OlmoForCausalLM of the same shape, optimizer included.

    python -m venv peers && peers/bin/pip install torch==2.11.0 transformers==5.23.0 ./python
    GENOMILL=target/release/genomill peers/bin/python benches/train_peers.py olmo-6m --rounds 5 --steps 8

Both start from the same weights, written by transformers, and read the same rows in the same order; the losses of all steps
are compared before any time is told. Rounds take turns: genomill, then PyTorch (eager, SDPA, fused AdamW). A step's
time is that of forward, backward, clipping and update, without reading rows. GENOMILL uses the libtorch of this Python's torch.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers

import genomill
from genomill.order import Order

LAMBDA = Path(__file__).parents[1] / "workflows" / "data" / "phage_lambda.fa.gz"
SHAPES = {"olmo-1m": (4, 128, 4), "olmo-6m": (6, 256, 4), "olmo-25m": (8, 448, 7)}
RATE, CLIP, EPSILON = 1e-3, 1.0, 1e-6
WORKFLOW = """
name: flow
stages:
  raw:     {{uses: ingest, sources: [{{fasta: {genome}}}]}}
  clean:   {{uses: clean, from: raw, min_length: 100}}
  split:   {{uses: split, from: clean, block: 4000, test_fraction: 0.1}}
  windows: {{uses: chunk, from: split, window: 4000, reverse_complement: [train]}}
  words:   {{uses: tokenizer, from: split, model: {{kmer: {{k: 6}}}}}}
  tokens:  {{uses: tokenize, from: windows, tokenizer: words}}
  shards:  {{uses: shard, from: tokens, context: {context}}}
  model:   {{uses: train, from: shards, initialize: {{hf: hf}}, duration: {steps} steps, batch_rows: {rows}, decay: constant,
            warmup: 1 step, learning_rate: {rate}, log_every: 1 step{more}}}
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=SHAPES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="per round; the first is not timed")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--more", default="", help="keys of the train stage, such as `, micro_batch_rows: 4`")
    return parser.parse_args()


def run(folder, *words):
    libraries = str(Path(torch.__file__).parent / "lib")
    environment = os.environ | {"LD_LIBRARY_PATH": libraries}
    command = [os.environ["GENOMILL"], *words, "--work", "work", "--progress", "none"]
    subprocess.run(command, cwd=folder, env=environment, check=True)


def write_model(folder, given, vocabulary):
    layers, width, heads = SHAPES[given.preset]
    torch.manual_seed(1)
    config = transformers.OlmoConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=heads, max_position_embeddings=given.context, tie_word_embeddings=True,
        pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )
    transformers.OlmoForCausalLM(config).save_pretrained(folder / "hf")


def ours(folder, given):
    """Seconds and losses of the steps of a fresh run."""
    run(folder, "run", "flow.yaml", "--jobs", str(given.threads), "--force", "model", "--until", "model")
    lines = (folder / "work" / "flow" / "model" / "history.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    ends = [0.0] + [record["seconds"] for record in records]
    return [b - a for a, b in zip(ends, ends[1:])], [record["loss"] for record in records]


def theirs(folder, batches):
    """The same with PyTorch."""
    model = transformers.OlmoForCausalLM.from_pretrained(folder / "hf", dtype=torch.float32, attn_implementation="sdpa")
    model.train()
    embedding = model.get_input_embeddings().weight
    matrices = [parameter for parameter in model.parameters() if parameter is not embedding]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": [embedding], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95), eps=1e-8, fused=True)
    seconds, losses = [], []
    for ids, labels in batches:
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - began)
    return seconds, losses


def batches_of(folder, given):
    """The batches that genomill reads, as ids and labels."""
    with genomill.open(folder / "work" / "flow" / "shards", split="train") as shards:
        order = Order(seed=0, rows=len(shards))
        numbers = range(given.steps * given.rows)
        rows = torch.tensor(shards.batch(order.at(numbers)).astype("int64"))
        pad = shards.special["[PAD]"]
    labels = rows.masked_fill(rows == pad, -100)
    return list(zip(rows.split(given.rows), labels.split(given.rows)))


def main():
    given = arguments()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(given.threads)
    folder = Path(tempfile.mkdtemp(prefix="train-peers-"))
    keys = {"genome": LAMBDA, "context": given.context, "steps": given.steps, "rows": given.rows, "rate": RATE}
    (folder / "flow.yaml").write_text(WORKFLOW.format(**keys, more=given.more))
    run(folder, "run", "flow.yaml", "--until", "shards")
    batches = batches_of(folder, given)
    with genomill.open(folder / "work" / "flow" / "shards", split="train") as shards:
        vocabulary = shards.vocabulary_size
    write_model(folder, given, vocabulary)
    times, losses = {"genomill": [], "PyTorch": []}, {}
    for number in range(given.rounds):
        for name, work in {"genomill": lambda: ours(folder, given), "PyTorch": lambda: theirs(folder, batches)}.items():
            seconds, losses[name] = work()
            times[name] += seconds[1:]
        off = max(abs(a - b) for a, b in zip(losses["genomill"], losses["PyTorch"], strict=True))
        if not off < 1e-3:
            sys.exit(f"round {number}: losses differ by {off}: {losses}")
    shutil.rmtree(folder)
    print(f"{given.preset}, vocabulary {vocabulary}, {given.rows} rows of {given.context} tokens, threads: {given.threads}; "
          f"losses of {given.steps} steps differ by {off:.1e} at most")
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in times.items():
        rate = given.rows * given.context / medians[name]
        print(f"  {name:9} {1e3 * medians[name]:7.0f} ms a step (least {1e3 * min(seconds):.0f}), {rate:6.0f} tokens/s, "
              f"x {medians[name] / medians['PyTorch']:.2f}")


if __name__ == "__main__":
    main()
