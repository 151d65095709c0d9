"""Computes with the real transformers and torch what tests/golden/olmo* hold, from the weights and ids that are there.

    python tests/oracles/golden_models.py            # compare, and fail where anything is further off than rounding
    python tests/oracles/golden_models.py --write    # put what was computed in the place of what is there
    python tests/oracles/golden_models.py --results  # also compare with what `genomill model check` says of a folder

Needs torch and transformers 5. CPU, f32, plain "eager" attention, one thread, so that the same versions give the same bits.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import safetensors
import torch
import transformers
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).parents[1] / "golden"
STEPS = 10
SETTINGS = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8}
DECAY, CLIP = 0.1, 1.0

# What rounding may do, between versions and kernels; tests/golden/README.md has the same limits.
LIMITS = {"logits": 5e-5, "loss": 5e-6, "grads": 2e-5, "losses": 4e-5, "norms": 1e-4, "parameters": 5e-5}


def model_of(folder):
    """The model of a folder, in f32 with plain attention."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder / "hf", dtype=torch.float32, attn_implementation="eager"
    )


def named(model):
    """Parameters by name, a tied head once."""
    return dict(model.named_parameters())


def step(model, optimizer, ids):
    """One AdamW step; the loss and the norm before it."""
    optimizer.zero_grad(set_to_none=True)
    loss = model(ids, labels=ids).loss
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
    scale = torch.clamp(CLIP / (norm + 1e-6), max=1.0)
    for gradient in gradients:
        gradient.mul_(scale)
    optimizer.step()
    return loss.item(), norm.item()


def optimizer_of(model):
    """Matrices decay, vectors do not."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() != 2]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], **SETTINGS)


def compute(folder):
    """All that a folder holds, from its weights and ids."""
    ids = load_file(folder / "forward.safetensors")["input_ids"]
    model = model_of(folder)
    out = model(ids, labels=ids)
    out.loss.backward()
    forward = {"input_ids": ids, "logits": out.logits.detach().contiguous(), "loss": out.loss.detach().reshape(1)}
    gradients = {name: parameter.grad.clone() for name, parameter in named(model).items()}
    optimizer = optimizer_of(model)
    losses, norms = zip(*[step(model, optimizer, ids) for _ in range(STEPS)])
    parameters = {name: parameter.detach().clone() for name, parameter in named(model).items()}
    return forward, gradients, parameters, list(losses), list(norms)


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def flat(tensors):
    return torch.cat([tensors[name].reshape(-1) for name in sorted(tensors)])


def compare(folder, forward, gradients, parameters, losses, norms):
    """How far what was computed is from what is stored, by kind."""
    stored = load_file(folder / "forward.safetensors")
    train = json.loads((folder / "train.json").read_text())
    expected = load_file(folder / "grads.safetensors")
    assert set(expected) == set(gradients), f"{folder.name}: other parameters"
    after = load_file(folder / "params_after_10_steps.safetensors")
    old_norms = train["grad_norm_before_clip_each_step"]
    return {
        "logits": (forward["logits"] - stored["logits"]).abs().max().item(),
        "loss": (forward["loss"].reshape(-1) - stored["loss"].reshape(-1)).abs().max().item(),
        "grads": max(relative(gradients[name], tensor) for name, tensor in expected.items()),
        "losses": max(abs(a - b) for a, b in zip(losses, train["ten_losses_before_each_step"], strict=True)),
        "norms": max(abs(a / b - 1) for a, b in zip(norms, old_norms, strict=True)),
        "parameters": relative(flat(parameters), flat(after)),
    }


def write(folder, forward, gradients, parameters, losses, norms):
    stored = load_file(folder / "forward.safetensors")
    forward["loss"] = forward["loss"].reshape(stored["loss"].shape)
    save_file(forward, folder / "forward.safetensors")
    save_file(gradients, folder / "grads.safetensors")
    save_file(parameters, folder / "params_after_10_steps.safetensors")
    train = json.loads((folder / "train.json").read_text())
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    versions["safetensors"] = safetensors.__version__
    train.update(versions, loss=losses[0], ten_losses_before_each_step=losses, grad_norm_before_clip_each_step=norms)
    (folder / "train.json").write_text(json.dumps(train, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="replace what is stored")
    parser.add_argument("--results", action="store_true", help="run `genomill model check` too; GENOMILL names the command")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    failed = False
    for folder in sorted(path.parent for path in GOLDEN.glob("olmo*/train.json")):
        computed = compute(folder)
        differences = compare(folder, *computed)
        wrong = [kind for kind, value in differences.items() if not value <= LIMITS[kind]]
        print(folder.name, *(f"{kind} {value:.1e}" for kind, value in differences.items()))
        if arguments.write:
            write(folder, *computed)
        elif wrong:
            failed = True
            print(f"{folder.name}: too far off: {', '.join(wrong)}", file=sys.stderr)
        if arguments.results:
            command = [os.environ["GENOMILL"], "model", "check", str(folder)]
            failed |= subprocess.run(command, check=False).returncode != 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
