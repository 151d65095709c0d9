#!/usr/bin/env python3
"""How long a corpus takes on a cluster, from what its stages cost here: the plan in workflows/cluster.md.

    benches/cluster_plan.py measure GENOMILL FASTA    # what each stage costs, on one thread, as a line of COSTS
    benches/cluster_plan.py                           # the tables
    benches/cluster_plan.py check                     # what the model says of the runs that were measured

Every stage is a line: CPU seconds to begin, CPU seconds for a Gb of bases, and bytes written for a base. Where the work falls into
partitions an array makes them and one job puts them together; all else is one job on one node.
"""

import json
import math
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

FLOW = """
name: flow
stages:
  raw:     {uses: ingest, sources: [{fasta: FILE}]}
  clean:   {uses: clean, from: raw}
  split:   {uses: split, from: clean, block: 5000000, validation_fraction: 0.01, test_fraction: 0.01}
  windows: {uses: chunk, from: split, window: 8192}
  pick:    {uses: tokenizer, from: split, model: {bpe: {vocabulary_size: 24, sample: 1Mb}}}
  bpe:     {uses: tokenizer, from: split, model: {bpe: {vocabulary_size: 1024}}}
  tokens:  {uses: tokenize, from: windows, tokenizer: bpe}
  shards:  {uses: shard, from: tokens, context: 1024}
"""
# `pick` is what `bpe` does in partitions: reading all bases for a sample. Learning from the sample is one job.
STAGES = ["raw", "clean", "split", "windows", "pick", "bpe", "tokens", "shards"]


def measure(genomill, fasta):
    """CPU seconds and bytes of each stage, on one thread; the file is read once before."""
    bases = sum(len(line) for line in open(fasta, "rb") if not line.startswith(b">")) - sum(
        1 for line in open(fasta, "rb") if not line.startswith(b">"))
    found = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("SCRATCH", ".")) as folder:
        flow = pathlib.Path(folder, "flow.yaml")
        flow.write_text(FLOW.replace("FILE", os.path.abspath(fasta)))
        for stage in STAGES:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([genomill, "run", flow, "--only", stage, "--jobs", "1", "--work", pathlib.Path(folder, "work"),
                            "--progress", "none"], check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            size = sum(f.stat().st_size for f in pathlib.Path(folder, "work/flow", stage).rglob("*") if f.is_file())
            found[stage] = (round(cpu, 2), size)
    return bases, found


# What `measure` printed: bases, then CPU seconds and bytes of each stage. Random bases; one thread; a release build of commit ac64be3, Intel Xeon.
MEASURED = [
    (100_000_000, {"raw": (0.19, 25_007_939), "clean": (0.13, 25_008_822), "split": (0.08, 3_988), "windows": (0.01, 33_987), "pick": (0.22, 3_790), "bpe": (2.78, 69_270), "tokens": (0.53, 32_979_041), "shards": (0.20, 48_795_851)}),
    (1_000_000_000, {"raw": (1.59, 250_035_785), "clean": (1.09, 250_040_901), "split": (0.64, 6_739), "windows": (0.04, 122_496), "pick": (1.91, 3_792), "bpe": (27.73, 69_224), "tokens": (4.39, 329_398_071), "shards": (1.33, 488_766_763)}),
    (4_000_000_000, {"raw": (5.73, 1_000_127_783), "clean": (5.04, 1_000_147_540), "split": (2.50, 8_407), "windows": (0.08, 424_901), "pick": (7.42, 3_796), "bpe": (126.63, 69_242), "tokens": (18.41, 1_317_194_584), "shards": (5.33, 1_953_572_450)}),
]

# Measured beside (benches/RESULTS.md): seconds by the clock of an element that has nothing to do, on two nodes; CPU seconds to link
# a partition; bytes of memory of a base that BPE learns from.
ELEMENT, LINK, BPE_MEMORY = 0.28, 0.003, 1.9

# Assumed of the cluster: cores of a node, bytes a second that a node and all nodes together can write, most elements of an array,
# and bases that BPE learns from at most (a sample of them, as a source of its own).
CORES, NODE_WRITES, ALL_WRITE, ELEMENTS, SAMPLE = 32, 1e9, 1e11, 1000, 30e9

# Bases of a partition; threads that a stage which is one job can use.
PARTITION, THREADS = 256e6, {"bpe": 2, "shards": 4}
ARRAYS = ["raw", "clean", "split", "pick", "tokens"]


def costs(points=MEASURED[:2]):
    """For each stage CPU seconds to begin, CPU seconds for a Gb and bytes for a base, through the first and the last of some runs."""
    (few, small), (many, large) = points[0], points[-1]
    found = {}
    for stage in STAGES:
        slope = max(0.0, (large[stage][0] - small[stage][0]) / (many - few))
        found[stage] = (max(0.0, small[stage][0] - slope * few), slope * 1e9, large[stage][1] / many)
    return found


def stage_seconds(stage, bases, nodes, cost):
    """Seconds by the clock, and CPU seconds, of a stage on so many nodes."""
    begin, each, written = cost[stage]
    if stage == "bpe":
        bases = min(bases, SAMPLE)
    cpu = each * bases / 1e9
    if stage not in ARRAYS:
        threads = THREADS.get(stage, 1)
        return max(begin + cpu / threads, written * bases / NODE_WRITES), begin + cpu
    partitions = math.ceil(bases / PARTITION)
    elements = min(partitions, ELEMENTS)
    at_once = min(elements, nodes * CORES)
    waves = math.ceil(partitions / at_once)
    made = max(waves * (begin + cpu / partitions), written * bases / min(nodes * NODE_WRITES, ALL_WRITE))
    joined = LINK * partitions
    queue = ELEMENT * elements if partitions > 1 else 0.0
    return max(made, queue) + joined, partitions * begin + cpu + joined


def plan(bases, nodes, cost):
    """Seconds by the clock, CPU seconds, the stage that takes longest, and its share."""
    each = {stage: stage_seconds(stage, bases, nodes, cost) for stage in STAGES}
    clock = sum(seconds for seconds, _ in each.values())
    longest = max(each, key=lambda stage: each[stage][0])
    return clock, sum(cpu for _, cpu in each.values()), longest, each[longest][0] / clock


def said(seconds):
    """A time as people say it."""
    for size, unit in [(365.25 * 86400, "years"), (86400, "days"), (3600, "h"), (60, "min")]:
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"


def cut(bases, nodes, cost, piece=1e12):
    """Seconds by the clock of workflows of their own, of `piece` bases each, one to a node at a time; all write to one file system."""
    pieces = math.ceil(bases / piece)
    written = sum(written for _, _, written in cost.values()) * bases
    each = plan(min(bases, piece), 1, {**cost, "pick": (0.0, 0.0, 0.0), "bpe": (0.0, 0.0, 0.0)})[0]
    return max(math.ceil(pieces / nodes) * each, written / ALL_WRITE)


def tables():
    """The plan, as tables for people."""
    cost, corpora = costs(), [("3 Gb", 3e9), ("300 Gb", 300e9), ("10 Tb", 1e13), ("50 Pb", 5e16)]
    print("| corpus | 1 node | 16 | 256 | 4,096 | core-hours | written | partitions | longest stage on 256 | memory of BPE on all of it |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, bases in corpora:
        clock = [said(plan(bases, nodes, cost)[0]) for nodes in (1, 16, 256, 4096)]
        _, cpu, longest, share = plan(bases, 256, cost)
        written = sum(written for _, _, written in cost.values()) * bases
        print(f"| {name} | {' | '.join(clock)} | {cpu / 3600:,.1f} | {written / 1e12:,.3g} TB | {math.ceil(bases / PARTITION):,} | "
              f"`{longest}`, {share:.0%} | {bases * BPE_MEMORY / 1e9:,.0f} GB |")
    print("\n| cut into workflows of 1 Tb | 1 node | 16 | 256 | 4,096 |\n|---|---|---|---|---|")
    for name, bases in corpora[2:]:
        print(f"| {name} | {' | '.join(said(cut(bases, nodes, cost)) for nodes in (1, 16, 256, 4096))} |")


def check():
    """What the lines through two runs say of the others."""
    cost = costs()
    for bases, found in MEASURED[2:]:
        for stage in STAGES:
            begin, each, _ = cost[stage]
            expected = begin + each * bases / 1e9
            print(f"{bases / 1e9:g} Gb {stage:8} measured {found[stage][0]:7.2f} s, expected {expected:7.2f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure(sys.argv[2], sys.argv[3])))
    elif sys.argv[1:2] == ["check"]:
        check()
    else:
        tables()
