#!/usr/bin/env python3
"""What our trainer makes of a GPU, beside PyTorch on the same libtorch: tokens a second, share of the peak, memory, and where our time goes.

    make gpu-bench                                     # where both the build and the GPU are
    GENOMILL=target/release/genomill python benches/gpu.py --shapes olmo-110m:1024:32 olmo-1b:2048:16 --by genomill compiled

A shape is a preset, a context and rows per step. Each is trained for some steps by genomill (f32 or bf16) and, in bf16 (autocast), by
PyTorch on a plain model of the same shape, eager and compiled, and by transformers' OlmoForCausalLM, all with fused AdamW; a step is
forward, backward, clipping and update. Which of them is said by --by. The peak is that of dense bf16 on H100 and H200; give --peak for
another. Needs torch, whose libtorch both use, and transformers for its part. With `--device cpu` and a small shape it tries itself out
where there is no GPU.
"""

import argparse
import json
import math
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

SIZES = {"olmo-300k": (4, 64, 4), "olmo-1m": (4, 128, 4), "olmo-6m": (6, 256, 4), "olmo-25m": (8, 448, 7), "olmo-110m": (12, 768, 12), "olmo-1b": (16, 2048, 16)}
WARM = 4
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
# What kernels of a GPU do, by parts of their names; the first that fits.
KINDS = {
    "attention": "flash|fmha|sdpa|cudnn_generated|attention",
    "products of matrices": "gemm|nvjet|cutlass|xmma|cublas|splitK",
    "our kernels": "split_and_turn|turn_and_join|^gate|^add_and_norm",
    "optimizer": "[aA]dam|multi_tensor",
    "copies and casts": "[mM]emcpy|[mM]emset|copy",
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["olmo-110m:1024:32", "olmo-1b:2048:16"], help="PRESET:CONTEXT:ROWS")
    parser.add_argument("--by", nargs="+", default=["genomill", "eager", "compiled", "transformers"],
                        choices=["genomill", "genomill-f32", "eager", "compiled", "transformers"])
    parser.add_argument("--steps", type=int, default=14, help=f"the first {WARM} are not timed")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--peak", type=float, default=989e12, help="operations a second")
    parser.add_argument("--traces", type=Path, help="keep our traces in this folder")
    return parser.parse_args()


def genomill(folder, *words):
    """A command and its environment: the libtorch of this Python."""
    libraries = str(Path(torch.__file__).parent / "lib")
    return {"args": [os.path.abspath(os.environ["GENOMILL"]), *words], "cwd": folder, "env": os.environ | {"LD_LIBRARY_PATH": libraries}}


def measured(folder, given, *words):
    """What the steps of a run measured. It is killed after the last of them: nobody wants its checkpoint."""
    shutil.rmtree(folder / "work" / "flow" / "model", ignore_errors=True)
    command = genomill(folder, "--device", given["device"], "train", "flow.yaml", "--progress", "json", *words)
    found, said = [], []
    with subprocess.Popen(**command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            said = [*said, line][-20:]
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("event") == "metrics":
                found.append(dict(event["values"]))
                if len(found) == given["steps"]:
                    process.kill()
    if len(found) < given["steps"]:
        raise RuntimeError(f"{given['preset']}: {len(found)} steps of {given['steps']}\n{''.join(said)}")
    return found


def ours(folder, given):
    """Seconds of the steps, and the most memory that tensors had; and where the time of others goes."""
    (folder / "flow.yaml").write_text(FLOW.format(**given))
    subprocess.run(**genomill(folder, "run", "flow.yaml", "--until", "shards", "--progress", "none"), check=True)
    found = measured(folder, given)
    losses = [values["loss"] for values in found]
    if not all(math.isfinite(loss) for loss in losses) or losses[-1] > losses[0] + 1:
        raise RuntimeError(f"{given['preset']} in {given['precision']} does not learn: {losses}")
    tokens = given["rows"] * given["context"]
    trace = folder / "trace.json"
    measured(folder, given | {"steps": 9}, "--trace", str(trace))
    return [tokens / values["tokens/s"] for values in found], max(values["peak memory GB"] for values in found) * 1e9, trace


def parts(trace):
    """Prints where the time of a trace's steps goes: by kind, and by kernel."""
    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    if not events:
        return
    steps, kinds, kernels = 3, Counter(), Counter()
    for event in events:
        kind = next((kind for kind, names in KINDS.items() if re.search(names, event["name"])), "else")
        kinds[kind] += event["dur"]
        kernels[(kind, event["name"][:110])] += event["dur"]
    span = max(event["ts"] + event["dur"] for event in events) - min(event["ts"] for event in events)
    print(f"  three steps of ours take {span / 1e3:.1f} ms from the first kernel to the last; busy {sum(kinds.values()) / span:.1%}; ms a step:")
    for kind, time_ in kinds.most_common():
        print(f"    {time_ / steps / 1e3:8.2f}  {time_ / span:6.1%}  {kind}")
    for (kind, name), time_ in kernels.most_common(25):
        print(f"      {time_ / steps / 1e3:8.3f}  {kind}: {name}")


class Memory:
    """The most memory that tensors had while it ran, in bytes; of a process none."""

    def __init__(self, device):
        self.device = device

    def __enter__(self):
        if self.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        return self

    def __exit__(self, *_):
        self.most = torch.cuda.max_memory_allocated() if self.device != "cpu" else 0


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


class FromTransformers(nn.Module):
    """transformers' model of the same shape."""

    def __init__(self, size, vocabulary, context):
        super().__init__()
        from transformers import OlmoConfig, OlmoForCausalLM
        layers, width, heads = size
        config = OlmoConfig(vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads,
                            num_key_value_heads=heads, max_position_embeddings=context, tie_word_embeddings=True, use_cache=False)
        self.model = OlmoForCausalLM._from_config(config, attn_implementation="sdpa")

    def forward(self, ids):
        return self.model(input_ids=ids, labels=ids).loss


def theirs(given, by):
    """Seconds of the steps of PyTorch, and the most memory in use."""
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high")
    device = given["device"]
    with torch.device(device):
        model = (FromTransformers if by == "transformers" else Model)(SIZES[given["preset"]], given["vocabulary"], given["context"])
    loss_of = torch.compile(model) if by == "compiled" else model
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
    median = statistics.median(seconds[WARM:])
    rate = given["rows"] * given["context"] / median
    share = rate * work(SIZES[given["preset"]], given["vocabulary"], given["context"]) / peak
    print(f"| {given['preset']} | {given['context']} | {given['rows']} | {name} | {1e3 * median:.1f} | {rate:,.0f} | {share:.1%} | {most / 1e9:.1f} |", flush=True)


def one(folder, here, by, peak, traces):
    """Measures and prints one row; of ours the trace is added to those that there are."""
    if by.startswith("genomill"):
        precision = "f32" if by.endswith("f32") else "bf16"
        seconds, most, trace = ours(folder, here | {"precision": precision})
        line(f"genomill, {precision}", seconds, most, here, peak)
        traces.append((here["preset"], precision, trace.rename(folder / f"{here['preset']}-{precision}.json")))
    else:
        seconds, most = theirs(here, by)
        line({"transformers": "transformers, bf16, eager"}.get(by, f"PyTorch, bf16, {by}"), seconds, most, here, peak)


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
    print(f"{where}, torch {torch.__version__}, {given.steps} steps, the first {WARM} not timed; share of {given.peak / 1e12:.0f} TFLOP/s\n")
    print("| model | context | rows | by | ms a step | tokens/s | share of the peak | memory of tensors, GB |\n|---|---|---|---|---|---|---|---|")
    traces, failures = [], []
    for preset, context, rows in shapes:
        here = {"preset": preset, "context": int(context), "rows": int(rows), "steps": given.steps, "vocabulary": 4110, "device": given.device}
        for by in given.by:
            try:
                one(folder, here, by, given.peak, traces)
            except Exception as error:  # the others are worth their time on a GPU
                failures.append(f"{preset} by {by}: {error}")
    for preset, precision, trace in traces:
        print(f"\n{preset} in {precision}:")
        parts(trace)
        if given.traces:
            shutil.copy(trace, given.traces)
    shutil.rmtree(folder)
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
