"""Computes with the published HyenaDNA class what tests/golden/hyenadna holds, from the weights and ids that are there.

    python tests/oracles/golden_hyena.py CHECKOUT            # compare, and fail where anything is further off than rounding
    python tests/oracles/golden_hyena.py CHECKOUT --write    # put what was computed in the place of what is there

CHECKOUT is a copy of the repository HazyResearch/hyena-dna, made with commit d553021b483b82980aa4b868b37ec2d4332e198a;
its file standalone_hyenadna.py is used as it is. Needs torch, safetensors, einops and numpy. CPU, f32, evaluation mode.
"""

import argparse
import importlib
import json
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).parents[1] / "golden" / "hyenadna"
LENGTHS = (258, 100, 7)
# What rounding may do; tests/golden/README.md has the same limits. Filters are compared for the first layer.
LIMITS = {"hidden": 1e-4, "lm_logits": 3e-4, "classifier_logits": 1e-5, "layer0_filter_kernel": 1e-5}
LOSS_LIMIT, NORM_LIMIT = 1e-4, 1e-3
# Steps of AdamW: matrices decay, but not the embedding and what makes the filters.
STEPS, RATE, DECAY, CLIP = 3, 1e-3, 0.1, 1.0
STEP_LIMIT = 1e-3


def stand_in(package, module, **members):
    """Puts an empty module where the reference imports one that its model does not compute with."""
    sys.modules[package] = types.ModuleType(package)
    name = f"{package}.{module}"
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(members)


class NoDepth(torch.nn.Module):
    """Stochastic depth of 0, which is what the model has outside training."""

    def __init__(self, p, mode):
        super().__init__()
        assert p == 0.0, f"stochastic depth of {p}"

    def forward(self, x):
        return x


def class_of(checkout):
    """The published class, from its own file."""
    stand_in("torchvision", "ops", StochasticDepth=NoDepth)
    stand_in("transformers", "tokenization_utils", AddedToken=object, PreTrainedTokenizer=object)
    sys.path.insert(0, str(checkout))
    return importlib.import_module("standalone_hyenadna").HyenaDNAModel


def model_of(reference):
    """The golden model in the published class; every stored name must be one of the class's."""
    config = json.loads((GOLDEN / "config.json").read_text())
    model = reference(**config["model"], use_head=True, n_classes=config["n_classes"])
    model.load_state_dict(load_file(GOLDEN / "model.safetensors"), strict=True)
    return model.eval()


def results(model, stored):
    """Hidden states and scores for all inputs, and the first layer's filters for the middle one."""
    found = {}
    embedding = model.backbone.embeddings.word_embeddings.weight
    with torch.no_grad():
        for length in LENGTHS:
            ids = stored[f"input_ids_L{length}"]
            found[f"input_ids_L{length}"] = ids
            hidden = found[f"hidden_L{length}"] = model.backbone(ids)
            found[f"lm_logits_L{length}"] = hidden @ embedding.T
            found[f"classifier_logits_L{length}"] = model(ids)
        filters = model.backbone.layers[0].mixer.filter_fn.filter(LENGTHS[1])
        found["layer0_filter_kernel"] = filters.reshape(LENGTHS[1], -1)
    return {name: tensor.contiguous() for name, tensor in found.items()}


def gradients(model, loss):
    """Of each parameter: the gradient's norm, its sum and its first values; a parameter without one is left out."""
    model.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    with_gradient = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    return {
        name: {"l2": g.norm().item(), "sum": g.sum().item(), "first": g.flatten()[:8].tolist()}
        for name, g in with_gradient
    }


def next_token_loss(model, ids):
    """Of the next token at all positions, padding included."""
    scores = model.backbone(ids) @ model.backbone.embeddings.word_embeddings.weight.T
    return torch.nn.functional.cross_entropy(scores[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def decays(name):
    return name.endswith("weight") and not any(part in name for part in ("norm", "ln_f", "embeddings", "implicit_filter"))


def steps(model, ids):
    """Losses and gradients' norms of some steps on one batch, and the parameters after them."""
    named = [(name, p) for name, p in model.named_parameters() if not name.startswith("head.")]
    groups = [
        {"params": [p for name, p in named if decays(name)], "weight_decay": DECAY},
        {"params": [p for name, p in named if not decays(name)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95), eps=1e-8)
    losses, norms = [], []
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        loss = next_token_loss(model, ids)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_([p for _, p in named], CLIP).item())
        losses.append(loss.item())
        optimizer.step()
    after = {name: {"l2": p.norm().item(), "first": p.flatten()[:8].tolist()} for name, p in named}
    return {"losses": losses, "norms": norms, "parameters": after}


def training(model, ids, labels):
    """Losses and gradients: of the next token at all positions, padding included, and of the classes; and some steps."""
    next_token = next_token_loss(model, ids)
    classes = torch.nn.functional.cross_entropy(model(ids), torch.tensor(labels))
    found = {
        "lm_loss_all_positions": next_token.item(),
        "lm_gradients": gradients(model, next_token),
        "classifier_loss": classes.item(),
        "classifier_gradients": gradients(model, classes),
    }
    return found | {"steps": steps(model, ids)}


def too_far(found, stored, train, kept):
    """Lines on all that is further off than rounding."""
    for name, tensor in stored.items():
        off = (found[name].double() - tensor.double()).abs().max().item()
        limit = LIMITS.get(name, LIMITS.get(name.rpartition("_")[0], 0.0))
        print(f"{name:<24} {off:.1e}")
        if not off <= limit:
            yield f"{name} differs by {off:.1e}, expected at most {limit:.1e}"
    for key in ("lm_loss_all_positions", "classifier_loss"):
        if not abs(train[key] - kept[key]) <= LOSS_LIMIT:
            yield f"{key} is {train[key]}, expected {kept[key]}"
    yield from steps_too_far(train["steps"], kept.get("steps"))
    for key in ("lm_gradients", "classifier_gradients"):
        if set(train[key]) != set(kept[key]):
            yield f"{key}: other parameters: {sorted(set(train[key]) ^ set(kept[key]))}"
            continue
        worst = max(abs(train[key][name]["l2"] / kept[key][name]["l2"] - 1) for name in kept[key])
        print(f"{key:<24} {worst:.1e}")
        if not worst <= NORM_LIMIT:
            yield f"{key}: a norm differs by {worst:.1e} of it, expected at most {NORM_LIMIT:.1e}"


def steps_too_far(found, kept):
    if kept is None:
        yield "no steps are stored"
        return
    for key in ("losses", "norms"):
        worst = max(abs(a / b - 1) for a, b in zip(found[key], kept[key], strict=True))
        print(f"{key + ' of steps':<24} {worst:.1e}")
        if not worst <= STEP_LIMIT:
            yield f"{key} of steps: {found[key]}, expected {kept[key]}"
    pairs = [(found["parameters"][name]["l2"], stored["l2"]) for name, stored in kept["parameters"].items()]
    worst = max(abs(a / b - 1) for a, b in pairs if b > 0)
    print(f"{'after the steps':<24} {worst:.1e}")
    if not worst <= STEP_LIMIT:
        yield f"parameters after the steps: a norm differs by {worst:.1e} of it"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="a copy of the repository HazyResearch/hyena-dna")
    parser.add_argument("--write", action="store_true", help="replace what is stored")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    stored, kept = load_file(GOLDEN / "forward.safetensors"), json.loads((GOLDEN / "train.json").read_text())
    model = model_of(class_of(arguments.checkout))
    found = results(model, stored)
    train = training(model, stored[f"input_ids_L{kept['length']}"], kept["classifier_labels"])
    if arguments.write:
        save_file(found, GOLDEN / "forward.safetensors")
        kept.update(train)
        kept["versions"]["torch"] = torch.__version__
        (GOLDEN / "train.json").write_text(json.dumps(kept, indent=1) + "\n")
        return
    wrong = list(too_far(found, stored, train, kept))
    print(*wrong, sep="\n", file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
