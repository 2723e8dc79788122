"""A training script that reads sealed weights and never writes plaintext to a disk.

    python train.py /weights

`/weights` is the mount of the sealed directory. The sidecar delivers the key. The script reads one tensor
at a time, fits a last layer to random data, and prints the loss. It needs weightlock-reader and numpy.
"""

import argparse
from pathlib import Path

import numpy as np
import weightlock


def fit(weight: np.ndarray, bias: np.ndarray, steps: int) -> list[float]:
    """Fit a linear layer to random data by gradient descent; return the loss of each step."""
    random = np.random.default_rng(7)
    inputs = random.normal(size=(256, weight.shape[1]))
    targets = inputs @ random.normal(size=weight.shape).T
    weight, bias, losses = weight.astype("f8"), bias.astype("f8"), []
    for _ in range(steps):
        error = inputs @ weight.T + bias - targets
        losses.append(float((error**2).mean()))
        weight -= 0.1 * error.T @ inputs / len(inputs)
        bias -= 0.1 * error.mean(axis=0)
    return losses


def main() -> None:
    """Read, train and print the loss."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights", type=Path, help="the sealed directory")
    parser.add_argument("--file", default="model.safetensors")
    parser.add_argument("--layer", default="head", help="reads LAYER.weight and LAYER.bias")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--keys", type=Path, default=weightlock.KEYS, help="directory of the delivered keys")
    options = parser.parse_args()
    with weightlock.safe_open(options.weights / options.file, "np", keys=options.keys) as tensors:
        print(f"{options.file}: {len(tensors.keys())} tensors")
        weight, bias = (tensors.get_tensor(f"{options.layer}.{part}") for part in ("weight", "bias"))
    losses = fit(weight, bias, options.steps)
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f} in {options.steps} steps")


if __name__ == "__main__":
    main()
