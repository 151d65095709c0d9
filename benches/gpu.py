#!/usr/bin/env python3
"""What our trainer makes of a GPU, beside PyTorch on the same libtorch: tokens a second, share of the peak, memory.

    make gpu-bench                                     # where both the build and the GPU are
    GENOMILL=target/release/genomill python benches/gpu.py --shapes olmo-110m:1024:32 olmo-1b:2048:16

A shape is a preset, a context and rows per step. Each is trained for some steps by genomill in f32 and in bf16, and by PyTorch in bf16
(autocast, eager and compiled) on a model of the same shape, with fused AdamW; a step is forward, backward, clipping and update. The
peak is that of dense bf16 on H100 and H200; give --peak for another. Needs torch alone, whose libtorch both use. With `--device cpu`
and a small shape it tries itself out where there is no GPU.
"""

import argparse
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

SIZES = {"olmo-300k": (4, 64, 4), "olmo-1m": (4, 128, 4), "olmo-6m": (6, 256, 4), "olmo-25m": (8, 448, 7), "olmo-110m": (12, 768, 12), "olmo-1b": (16, 2048, 16)}
FLOW = """
name: flow
stages:
  raw:     {{uses: ingest, sources: [{{fasta: genome.fa}}]}}
  clean:   {{uses: clean, from: raw}}
  split:   {{uses: split, from: clean}}
  windows: {{uses: chunk, from: split, window: 60000}}
  words:   {{uses: tokenizer, model: {{kmer: {{k: 6}}}}}}
  tokens:  {{uses: tokenize, from: windows, tokenizer: words}}
  shards:  {{uses: shard, from: tokens, context: {context}}}
  model:   {{uses: train, from: shards, preset: {preset}, precision: {precision}, duration: {steps} steps, batch_rows: {rows},
            micro_batch_rows: {rows}, decay: constant, warmup: 1 step, learning_rate: 3e-4, log_every: 1 step}}
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["olmo-110m:1024:32", "olmo-1b:2048:16"], help="PRESET:CONTEXT:ROWS")
    parser.add_argument("--steps", type=int, default=14, help="the first four are not timed")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--peak", type=float, default=989e12, help="operations a second")
    return parser.parse_args()


class Memory:
    """The most memory in use while it runs, in bytes: of the GPU as its driver tells it, or of a process."""

    def __init__(self, device):
        self.device, self.most, self.going = device, 0, True

    def __enter__(self):
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.going = False
        self.thread.join()

    def watch(self):
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while self.going and self.device != "cpu":
            used = subprocess.run(query, capture_output=True, text=True).stdout.split()
            self.most = max([self.most, *(int(number) << 20 for number in used[:1])])
            time.sleep(0.2)


def ours(folder, device, given):
    """Seconds and losses of the steps, and the most memory in use."""
    shutil.rmtree(folder / "work" / "flow" / "model", ignore_errors=True)
    (folder / "flow.yaml").write_text(FLOW.format(**given))
    libraries = str(Path(torch.__file__).parent / "lib")
    command = [os.path.abspath(os.environ["GENOMILL"]), "run", "flow.yaml", "--until", "model", "--device", device, "--progress", "none"]
    with Memory(device) as memory:
        subprocess.run(command, cwd=folder, env=os.environ | {"LD_LIBRARY_PATH": libraries}, check=True)
    lines = (folder / "work" / "flow" / "model" / "history.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    ends = [0.0] + [record["seconds"] for record in records]
    return [b - a for a, b in zip(ends, ends[1:])], [record["loss"] for record in records], memory.most


class Layer(nn.Module):
    """A layer of OLMo: norms without weights before each branch, rotary positions, a gated feed-forward branch."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.output = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.gate_up, self.down = nn.Linear(width, 8 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x, cos, sin):
        rows, time_, width = x.shape
        qkv = self.qkv(functional.layer_norm(x, [width])).view(rows, time_, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        low, high = qkv[:2].float().chunk(2, -1)
        q, k = torch.cat([low * cos - high * sin, high * cos + low * sin], -1).to(qkv.dtype)
        seen = functional.scaled_dot_product_attention(q, k, qkv[2], is_causal=True)
        x = x + self.output(seen.transpose(1, 2).reshape(rows, time_, width))
        gate, up = self.gate_up(functional.layer_norm(x, [width])).chunk(2, -1)
        return x + self.down(functional.silu(gate) * up)


class Model(nn.Module):
    """An OLMo whose head is its embedding."""

    def __init__(self, size, vocabulary, context):
        super().__init__()
        layers, self.width, heads = size
        self.embedding = nn.Embedding(vocabulary, self.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(self.width, heads) for _ in range(layers))
        head = self.width // heads
        angles = torch.outer(torch.arange(context), 10_000.0 ** -(torch.arange(0, head, 2) / head))
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, ids):
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        logits = functional.linear(functional.layer_norm(x, [self.width]), self.embedding.weight)
        return functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten())


def theirs(device, given, compiled):
    """Seconds of the steps of PyTorch, and the most memory in use."""
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high")
    model = Model(SIZES[given["preset"]], given["vocabulary"], given["context"]).to(device)
    loss_of = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    batches = torch.randint(given["vocabulary"], (given["steps"], given["rows"], given["context"]), device=device)
    seconds = []
    with Memory(device) as memory:
        for ids in batches:
            began = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16):
                loss = loss_of(ids)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            loss.item()
            seconds.append(time.perf_counter() - began)
    del model, loss_of, optimizer
    if device != "cpu":
        torch.cuda.empty_cache()
    return seconds, memory.most


def work(size, vocabulary, context):
    """Operations for a token, forward and backward; attention is not halved for what is never seen."""
    layers, width, _ = size
    return 6 * (layers * 16 * width * width + vocabulary * width) + 12 * layers * context * width


def line(name, seconds, most, given, peak):
    """Prints what a run came to."""
    median = statistics.median(seconds[4:])
    rate = given["rows"] * given["context"] / median
    share = rate * work(SIZES[given["preset"]], given["vocabulary"], given["context"]) / peak
    print(f"| {given['preset']} | {given['context']} | {given['rows']} | {name} | {1e3 * median:.1f} | {rate:,.0f} | {share:.1%} | {most / 1e9:.1f} |", flush=True)


def main():
    given = arguments()
    folder = Path(tempfile.mkdtemp(prefix="gpu-"))
    draw = random.Random(1)
    shapes = [shape.split(":") for shape in given.shapes]
    bases = max(6 * 2 * int(rows) * int(context) * given.steps for _, context, rows in shapes)
    with open(folder / "genome.fa", "w") as file:
        for number in range(math.ceil(bases / 1_000_000)):
            file.write(f">c{number}\n{''.join(draw.choices('ACGT', k=1_000_000))}\n")
    where = torch.cuda.get_device_name() if given.device != "cpu" else "a processor"
    print(f"{where}, torch {torch.__version__}, {given.steps} steps, the first four not timed; share of {given.peak / 1e12:.0f} TFLOP/s\n")
    print("| model | context | rows | by | ms a step | tokens/s | share of the peak | memory, GB |\n|---|---|---|---|---|---|---|---|")
    for preset, context, rows in shapes:
        given_here = {"preset": preset, "context": int(context), "rows": int(rows), "steps": given.steps, "vocabulary": 4110}
        for precision in ["f32", "bf16"]:
            seconds, losses, most = ours(folder, given.device, given_here | {"precision": precision})
            if not all(math.isfinite(loss) for loss in losses) or losses[-1] > losses[0] + 1:
                sys.exit(f"{preset} in {precision} does not learn: {losses}")
            line(f"genomill, {precision}", seconds, most, given_here, given.peak)
        for compiled in [False, True]:
            seconds, most = theirs(given.device, given_here, compiled)
            line(f"PyTorch, bf16, {'compiled' if compiled else 'eager'}", seconds, most, given_here, given.peak)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
