"""The time of a training step of HyenaDNA and DNABERT-2 beside the classes that their authors published, optimizer included.

    python -m venv peers && peers/bin/pip install torch==2.11.0 transformers==5.23.0 safetensors einops ./python
    GENOMILL=target/release/genomill peers/bin/python benches/peer_models.py hyenadna-tiny-1k CHECKOUT --context 1024
    GENOMILL=target/release/genomill peers/bin/python benches/peer_models.py dnabert2-6m REFERENCE --context 128

CHECKOUT is a copy of HazyResearch/hyena-dna, REFERENCE the folder with bert_layers.py (mosaicml/examples, examples/benchmarks/bert/src).
Both train on the same rows without dropout; the published classes start from our weights after one step, and of HyenaDNA the loss of
the step after it must be ours (what a masked model is asked differs, so there the golden files speak for it). Rounds take turns. A step's time
is that of forward, backward, clipping and update, without reading rows. GENOMILL uses the libtorch of this Python's torch. With
`--device cuda` both use a GPU, in f32; long contexts need a longer genome (`--genome yeast_sacCer3.fa.gz`, of workflows/data).
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
import warnings
from pathlib import Path

import torch

import genomill
from genomill.order import Order

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "oracles"))
DATA = ROOT / "workflows" / "data"
RATE, CLIP, MASK_RATE = 1e-4, 1.0, 0.15
WORKFLOW = """
name: flow
stages:
  raw:     {{uses: ingest, sources: [{{fasta: {data}/{genome}}}]}}
  clean:   {{uses: clean, from: raw, min_length: 100}}
  split:   {{uses: split, from: clean, block: {window}, test_fraction: 0.1}}
  windows: {{uses: chunk, from: split, window: {window}, reverse_complement: [train]}}
  words:   {{uses: tokenizer, model: {tokenizer}}}
  tokens:  {{uses: tokenize, from: windows, tokenizer: words}}
  shards:  {{uses: shard, from: tokens, context: {context}}}
  model:   {{uses: train, from: shards, preset: {preset}, duration: {steps} steps, batch_rows: {rows}, decay: constant, warmup: 1 step,
            learning_rate: {rate}, decay_norms: false, log_every: 1 step, checkpoint_every: 1 step, keep_checkpoints: {steps}{more}}}
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("reference", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="per round; the first is not timed")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--genome", default="phage_lambda.fa.gz")
    parser.add_argument("--more", default="", help="keys of the train stage, such as `, micro_batch_rows: 4`")
    return parser.parse_args()


def run(folder, *words):
    libraries = str(Path(torch.__file__).parent / "lib")
    environment = os.environ | {"LD_LIBRARY_PATH": libraries}
    subprocess.run([os.environ["GENOMILL"], *words], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)


def workflow(folder, *words):
    run(folder, "run", "flow.yaml", "--work", "work", "--progress", "none", *words)


def ours(folder, given):
    """Seconds and losses of the steps of a fresh run."""
    workflow(folder, "--device", given.device, "--jobs", str(given.threads), "--force", "model", "--until", "model")
    lines = (folder / "work" / "flow" / "model" / "history.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    ends = [0.0] + [record["seconds"] for record in records]
    return [b - a for a, b in zip(ends, ends[1:])], [record["loss"] for record in records]


def after_one_step(folder):
    """Configuration and weights that the published class reads."""
    from safetensors.torch import load_file

    shutil.rmtree(folder / "start", ignore_errors=True)
    run(folder, "model", "export", "work/flow/model/checkpoints/step-00000001", "start")
    return json.loads((folder / "start" / "config.json").read_text()), load_file(folder / "start" / "model.safetensors")


def hyena(given, config, tensors):
    """The published class, and its loss of some rows."""
    import golden_hyena

    model = golden_hyena.class_of(given.reference)(**config | {"embed_dropout": 0.0}, use_head=False)
    model.load_state_dict(tensors, strict=True)
    embedding = model.backbone.embeddings.word_embeddings.weight

    def loss(rows, pad, _mask):
        targets = rows[:, 1:].masked_fill(rows[:, 1:] == pad, -100)
        scores = (model(rows) @ embedding.T)[:, :-1]
        return torch.nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten())

    return model, loss


def bert(given, config, tensors):
    import transformers

    import golden_dnabert2

    warnings.simplefilter("ignore")
    module = golden_dnabert2.reference(given.reference)
    config = transformers.BertConfig(**config | {"hidden_dropout_prob": 0.0, "alibi_starting_size": max(512, given.context)})
    model = module.BertForMaskedLM(config)
    model.load_state_dict(tensors, strict=False)

    def loss(rows, pad, mask):
        asked = (torch.rand(rows.shape, device=rows.device) < MASK_RATE) & (rows != pad)
        labels = rows.masked_fill(~asked, -100)
        return model(rows.masked_fill(asked, mask), attention_mask=(rows != pad).long(), labels=labels).loss

    return model, loss


def theirs(folder, given, batches):
    """The same with the published class in eager PyTorch and fused AdamW, from our first step on."""
    start = bert if given.preset.startswith("dnabert2") else hyena
    model, loss_of = start(given, *after_one_step(folder))
    model.to(given.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, fused=True)
    seconds, losses = [], []
    for batch in batches[1:]:
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        rows, *ids = batch
        loss = loss_of(rows.to(given.device), *ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - began)
    return [0.0, *seconds], losses


def batches_of(folder, given):
    """The rows that genomill reads, with the ids of padding and of the mask."""
    with genomill.open(folder / "work" / "flow" / "shards", split="train") as shards:
        order = Order(seed=0, rows=len(shards))
        rows = torch.tensor(shards.batch(order.at(range(given.steps * given.rows))).astype("int64"))
        return [(part, shards.special["[PAD]"], shards.special["[MASK]"]) for part in rows.split(given.rows)]


def main():
    given = arguments()
    torch.set_num_threads(given.threads)
    folder = Path(tempfile.mkdtemp(prefix="peer-models-"))
    masked = given.preset.startswith("dnabert2")
    tokenizer = f"{{file: {DATA}/dnabert2_tokenizer.json}}" if masked else "nucleotide"
    keys = {name: getattr(given, name) for name in ("preset", "context", "steps", "rows", "more", "genome")}
    keys["window"] = max(4000, given.context)
    if given.device != "cpu" and "micro_batch_rows" not in given.more:
        keys["more"] += f", micro_batch_rows: {given.rows}"  # as the published classes do
    (folder / "flow.yaml").write_text(WORKFLOW.format(data=DATA, tokenizer=tokenizer, rate=RATE, **keys))
    workflow(folder, "--until", "shards")
    batches = batches_of(folder, given)
    times = {"genomill": [], "PyTorch": []}
    for number in range(given.rounds):
        seconds, losses = ours(folder, given)
        times["genomill"] += seconds[2:]
        seconds, others = theirs(folder, given, batches)
        times["PyTorch"] += seconds[2:]
        off = abs(losses[1] - others[0])
        if not masked and not off < 1e-3:
            sys.exit(f"round {number}: losses after one step differ by {off}: {losses}, {others}")
    shutil.rmtree(folder)
    told = "what is masked differs" if masked else f"losses after one step differ by {off:.1e}"
    print(f"{given.preset}, {given.rows} rows of {given.context} tokens, {given.device}, threads: {given.threads}; {told}")
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in times.items():
        rate = given.rows * given.context / medians[name]
        print(f"  {name:9} {1e3 * medians[name]:7.0f} ms a step (least {1e3 * min(seconds):.0f}), {rate:7.0f} tokens/s, "
              f"x {medians[name] / medians['PyTorch']:.2f}")


if __name__ == "__main__":
    main()
