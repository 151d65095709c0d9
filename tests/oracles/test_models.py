"""What `genomill model export` writes is what transformers opens, and computes the same.

    GENOMILL=target/release/genomill python -m pytest tests/oracles/test_models.py

GENOMILL names the command, built with the trainer. Needs torch, transformers and safetensors; takes a minute.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

COMMAND = os.environ.get("GENOMILL")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.skipif(not COMMAND, reason="GENOMILL is not set: no command to export with")

LAMBDA = Path(__file__).parents[2] / "workflows" / "data" / "phage_lambda.fa.gz"
WORKFLOW = """
name: flow
stages:
  raw:     {{uses: ingest, sources: [{{fasta: {genome}}}]}}
  clean:   {{uses: clean, from: raw, min_length: 100}}
  split:   {{uses: split, from: clean, block: 4000, validation_fraction: 0.15, test_fraction: 0.15}}
  windows: {{uses: chunk, from: split, window: 1000, reverse_complement: [train]}}
  bpe:     {{uses: tokenizer, from: split, model: {tokenizer}}}
  tokens:  {{uses: tokenize, from: windows, tokenizer: bpe}}
  shards:  {{uses: shard, from: tokens, context: 64}}
  model:   {{uses: train, from: shards, preset: olmo-300k, model: {model}, duration: 40 steps, batch_rows: 8}}
"""
MODELS = {
    "olmo": ("{bpe: {vocabulary_size: 96}}", "{rope_theta: 5000, clip_qkv: 2}"),
    "olmo2": ("{kmer: {k: 3}}", "{family: olmo2, tied_head: false, kv_heads: 1}"),
}


def run(folder, *arguments):
    done = subprocess.run([COMMAND, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=MODELS)
def folder(request, tmp_path_factory):
    """A folder with work/flow/model, and its export hf."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer, model = MODELS[request.param]
    (folder / "flow.yaml").write_text(WORKFLOW.format(genome=LAMBDA, tokenizer=tokenizer, model=model))
    run(folder, "run", "flow.yaml", "--work", "work", "--progress", "none")
    run(folder, "model", "export", "work/flow/model", "--to", "hf", "hf")
    return folder


def test_transformers_opens_it_and_computes_the_same(folder):
    model, told = transformers.AutoModelForCausalLM.from_pretrained(folder / "hf", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"], told
    assert model.dtype == torch.float32
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(2, model.config.vocab_size, (4, 64), generator=generator)
    with torch.no_grad():
        out = model(ids, labels=ids)
    tensors = {"input_ids": ids, "logits": out.logits.contiguous(), "loss": out.loss}
    safetensors.save_file(tensors, folder / "forward.safetensors")
    print(run(folder, "model", "check", "."))


def test_a_changed_theta_is_noticed(folder):
    """The check above can fail: the same weights with another theta are another model."""
    path = folder / "hf" / "config.json"
    text = path.read_text()
    config = json.loads(text)
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] != 77.0
    config["rope_theta"] = config["rope_parameters"]["rope_theta"] = 77.0
    path.write_text(json.dumps(config))
    done = subprocess.run([COMMAND, "model", "check", "."], cwd=folder, capture_output=True, text=True)
    path.write_text(text)
    assert done.returncode == 1 and "largest difference" in done.stderr, done.stderr


def test_its_tokenizer_gives_the_same_ids(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "hf")
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.pad_token_id == model.config.pad_token_id
    for bases in ["ACGT", "GGGCGGCGACCTCGCGGGTTTTCGCTATTTATGAAAATTTTCCGG", "ACGTNNACGTRYACGT"]:
        expected = run(folder, "tokenizer", "encode", "work/flow/bpe/tokenizer.json", bases)
        assert tokenizer(bases, add_special_tokens=False).input_ids == [int(i) for i in expected.split()]


def test_it_generates_bases(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "hf")
    ids = tokenizer("ACGTTGCA", add_special_tokens=False, return_tensors="pt").input_ids
    out = model.generate(ids, max_new_tokens=8, do_sample=False)
    assert out.shape[1] > ids.shape[1]
    assert int(out.max()) < model.config.vocab_size


def test_tensorboard_reads_the_course_of_the_run(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run_folder = folder / "work" / "flow" / "model"
    records = [json.loads(line) for line in (run_folder / "history.jsonl").read_text().splitlines()]
    events = accumulator.EventAccumulator(str(run_folder))
    events.Reload()
    names = {"loss/train": "loss", "learning_rate": "learning_rate", "gradient_norm": "gradient_norm"}
    names |= {"bits_per_base/train": "bits_per_base", "bits_per_base/validation": "validation_bits_per_base"}
    for tag, key in names.items():
        expected = [(record["step"], record[key]) for record in records if record.get(key) is not None]
        found = [(scalar.step, scalar.value) for scalar in events.Scalars(tag)]
        assert [step for step, _ in found] == [step for step, _ in expected], tag
        assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-6), tag
    assert all(rate.value > 0 for rate in events.Scalars("tokens_per_second"))
    times = [scalar.wall_time for scalar in events.Scalars("loss/train")]
    assert times == sorted(times) and times[0] > 1.7e9
