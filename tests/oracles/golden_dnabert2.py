"""Computes with the published classes what tests/golden/dnabert2 holds, from the weights and ids that are there.

    python tests/oracles/golden_dnabert2.py REFERENCE            # compare, and fail where anything is further off than rounding
    python tests/oracles/golden_dnabert2.py REFERENCE --write    # put what was computed in the place of what is there

REFERENCE is the folder with bert_layers.py and bert_padding.py: examples/benchmarks/bert/src of a checkout of mosaicml/examples.
Needs torch, transformers 5, safetensors and einops. CPU, f32, one thread, without Triton, so that attention is plain torch.
"""

import argparse
import importlib
import json
import sys
import warnings
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

FOLDER = Path(__file__).parents[1] / "golden" / "dnabert2"
IGNORED = -100

# What rounding may do; tests/golden/README.md has the same limits. Gradient norms are relative.
LIMITS = {"last_hidden": 5e-5, "mlm_logits": 2e-4, "pooled": 2e-5, "classifier_logits": 2e-5}
LIMITS |= {"last_hidden_nopad": 5e-5, "mlm_logits_nopad": 2e-4, "last_hidden_nopad_types": 5e-5}
LOSSES, NORMS = 2e-4, 1e-3
# Steps of AdamW on the masked loss: matrices decay, but not the embeddings.
STEPS, RATE, DECAY, CLIP = 3, 1e-3, 0.1, 1.0


def reference(folder):
    """The published module; its own attention in torch is taken where Triton's cannot be imported."""
    sys.modules["flash_attn_triton"] = None
    sys.path.insert(0, str(folder))
    return importlib.import_module("bert_layers")


def loaded(kind, config, tensors):
    """A model of class `kind` in evaluation mode; the file holds more than one class needs, and all that it needs."""
    model = kind(config)
    needed = model.state_dict()
    missing = set(needed) - set(tensors)
    assert not missing, f"{kind.__name__} also needs {sorted(missing)}"
    model.load_state_dict({name: tensors[name] for name in needed})
    return model.eval()


def norms(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}


def decays(name):
    return name.endswith("weight") and "embeddings" not in name and "norm" not in name.lower()


def steps(model, ids, valid, labels):
    """Losses and gradients' norms of some steps on one batch, and the parameters after them."""
    named = [(name, p) for name, p in model.named_parameters() if not name.startswith("bert.pooler")]
    groups = [
        {"params": [p for name, p in named if decays(name)], "weight_decay": DECAY},
        {"params": [p for name, p in named if not decays(name)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95), eps=1e-8)
    found = {"losses": [], "norms": []}
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        scores = model.cls(model.bert(ids, attention_mask=valid, token_type_ids=torch.zeros_like(ids))[0])
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        loss.backward()
        found["losses"].append(loss.item())
        found["norms"].append(torch.nn.utils.clip_grad_norm_([p for _, p in named], CLIP).item())
        optimizer.step()
    return found | {"parameters": {name: {"l2": p.norm().item()} for name, p in named}}


def compute(module):
    """Results by name, losses, the norms of the gradients of both losses, and some steps."""
    config = transformers.BertConfig.from_pretrained(FOLDER)
    tensors, stored = load_file(FOLDER / "model.safetensors"), load_file(FOLDER / "forward.safetensors")
    ids, valid = stored["input_ids"], stored["attention_mask"]
    ids_only, types = stored["input_ids_nopad"], stored["token_type_ids_nopad"]
    masked = loaded(module.BertForMaskedLM, config, tensors)
    classifier = loaded(module.BertForSequenceClassification, config, tensors)
    first, all_valid = torch.zeros_like(ids), torch.ones_like(ids_only)

    hidden, pooled = classifier.bert(ids, attention_mask=valid, token_type_ids=first)
    alone = masked.bert(ids_only, attention_mask=all_valid, token_type_ids=torch.zeros_like(types))[0]
    typed = masked.bert(ids_only, attention_mask=all_valid, token_type_ids=types)[0]
    classes = classifier.classifier(pooled)
    results = {
        "last_hidden": hidden,
        "mlm_logits": masked.cls(masked.bert(ids, attention_mask=valid, token_type_ids=first)[0]),
        "pooled": pooled,
        "classifier_logits": classes,
        "last_hidden_nopad": alone,
        "mlm_logits_nopad": masked.cls(alone),
        "last_hidden_nopad_types": typed,
    }
    labels = torch.tensor(json.loads((FOLDER / "train.json").read_text())["classifier_labels"])
    mlm_loss = torch.nn.functional.cross_entropy(
        results["mlm_logits"].flatten(0, 1), stored["mlm_labels"].flatten(), ignore_index=IGNORED
    )
    class_loss = torch.nn.functional.cross_entropy(classes, labels)
    mlm_norms, class_norms = norms(masked, mlm_loss), norms(classifier, class_loss)
    results = {name: tensor.detach().contiguous() for name, tensor in results.items()}
    losses = {"mlm": mlm_loss.item(), "classifier": class_loss.item()}
    after = steps(masked, ids, valid, stored["mlm_labels"])
    return results, losses, {"mlm": mlm_norms, "classifier": class_norms}, after


def differences(results, losses, gradients, after):
    """How far everything is from what is stored, with its limit."""
    stored, train = load_file(FOLDER / "forward.safetensors"), json.loads((FOLDER / "train.json").read_text())
    for name, limit in LIMITS.items():
        yield name, (results[name] - stored[name]).abs().max().item(), limit
    for head, loss in losses.items():
        yield f"{head} loss", abs(loss - train[f"{head}_loss"]), LOSSES
        expected = train[f"{head}_gradients"]
        assert set(expected) == set(gradients[head]), f"{head}: other parameters have gradients"
        off = max(abs(norm / expected[name]["l2"] - 1) for name, norm in gradients[head].items())
        yield f"{head} gradients", off, NORMS
    kept = train["steps"]
    for key in ("losses", "norms"):
        yield f"{key} of steps", max(abs(a / b - 1) for a, b in zip(after[key], kept[key], strict=True)), NORMS
    pairs = [(after["parameters"][name]["l2"], stored["l2"]) for name, stored in kept["parameters"].items()]
    yield "after the steps", max(abs(a / b - 1) for a, b in pairs), NORMS


def write(results, losses, gradients, after):
    stored = load_file(FOLDER / "forward.safetensors")
    save_file({**stored, **results}, FOLDER / "forward.safetensors")
    train = json.loads((FOLDER / "train.json").read_text())
    for head, loss in losses.items():
        train[f"{head}_loss"] = loss
        train[f"{head}_gradients"] = {name: {"l2": norm} for name, norm in gradients[head].items()}
    train["steps"] = after
    train["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}
    (FOLDER / "train.json").write_text(json.dumps(train, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", type=Path, help="the folder with bert_layers.py")
    parser.add_argument("--write", action="store_true", help="replace what is stored")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    computed = compute(reference(arguments.reference))
    if arguments.write:
        return write(*computed)
    failed = False
    for name, off, limit in differences(*computed):
        within = off <= limit
        failed |= not within
        print(f"{name:<24} off by {off:.1e}, {limit:.0e} allowed{'' if within else ': too far'}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
