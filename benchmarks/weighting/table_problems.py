"""The tables: three of scikit-learn's, and generated ones whose truth is known."""

import math
from functools import partial

import numpy as np
import torch
from sklearn.datasets import load_diabetes, load_digits, load_wine
from torch import Tensor

from benchmarks.weighting.rows import Rows, Splits, TableProblem
from examples.toy_regression import make_data


def toy(seed: int) -> Splits:
    """Return two lines with noise of 10 and 1. The test targets are the lines without noise."""
    splits = {}
    for number, split in enumerate(("train", "validation", "test")):
        x, targets = make_data(3 * seed + number)
        if split == "test":
            targets = {"y1": 2 * x[:, 0] + 8, "y2": 3 * x[:, 0] + 3}
        splits[split] = Rows(x, targets)
    return splits


def diabetes(seed: int) -> Splits:
    """Return patients; the tasks are progress of diabetes, body-mass index, blood pressure, sex."""
    data = load_diabetes()
    columns = {name: data.data[:, k] for k, name in enumerate(data.feature_names)}
    targets = {
        "progression": standardised(data.target),
        "bmi": standardised(columns.pop("bmi")),
        "blood pressure": standardised(columns.pop("bp")),
        "sex": torch.from_numpy((columns.pop("sex") > 0).astype(np.int64)),
    }
    return divided(np.stack(list(columns.values()), 1), targets, seed)


def wine(seed: int) -> Splits:
    """Return wines; the tasks are the cultivar, the alcohol and the proline."""
    data = load_wine()
    columns = {name: data.data[:, k] for k, name in enumerate(data.feature_names)}
    targets = {
        "cultivar": torch.from_numpy(data.target.astype(np.int64)),
        "alcohol": standardised(columns.pop("alcohol")),
        "proline": standardised(columns.pop("proline")),
    }
    return divided(np.stack(list(columns.values()), 1), targets, seed)


def digits(seed: int) -> Splits:
    """Return images; the tasks are which digit it is, how much ink it has, and the ink's centre."""
    data = load_digits()
    images = data.images
    ink = images.sum((1, 2))
    centre = (images * np.arange(8)[:, None]).sum((1, 2)) / ink
    targets = {
        "digit": torch.from_numpy(data.target.astype(np.int64)),
        "centre": standardised(centre),
        "noisy ink": standardised(ink + np.random.default_rng(seed).normal(0, 2 * ink.std(), 1797)),
    }
    return divided(data.data, targets, seed)


def generated(
    seed: int,
    noise: tuple[float, ...],
    scale: tuple[float, ...] = (1.0, 1.0, 1.0),
    num_rows: int = 1024,
) -> Splits:
    """Return functions of eight inputs that share features. The test targets have no noise."""
    rng = np.random.default_rng(seed)
    inputs_to_features = rng.normal(0, 1 / math.sqrt(8), (8, 16))
    features_to_tasks = rng.normal(0, 1 / 4, (16, len(noise)))
    splits = {}
    for split, count in (("train", num_rows), ("validation", num_rows), ("test", 4096)):
        x = rng.normal(size=(count, 8))
        clean = np.tanh(2 * x @ inputs_to_features) @ features_to_tasks
        clean /= clean.std(0)
        noisy = clean if split == "test" else clean + rng.normal(size=clean.shape) * noise
        targets = {f"f{k}": floats(scale[k] * noisy[:, k]) for k in range(len(noise))}
        splits[split] = Rows(floats(x), targets)
    return splits


def rare(seed: int) -> Splits:
    """Return three functions, where one row of twenty has a label for the last of them."""
    splits = generated(seed, noise=(0.5, 0.5, 0.1))
    hidden = torch.rand(1024, generator=torch.Generator().manual_seed(seed)) > 0.05
    splits["train"].targets["f2"][hidden] = math.nan
    return splits


def divided(inputs: np.ndarray, targets: dict[str, Tensor], seed: int) -> Splits:
    """Split the rows at random into 60, 20 and 20%, with standardised inputs."""
    constant = inputs.std(0) == 0
    x = floats((inputs - inputs.mean(0)) / np.where(constant, 1.0, inputs.std(0)))
    rows = Rows(x, targets)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    ends = int(0.6 * len(x)), int(0.8 * len(x))
    parts = order.tensor_split(ends)
    return {k: rows[part] for k, part in zip(("train", "validation", "test"), parts, strict=True)}


def standardised(column: np.ndarray) -> Tensor:
    """Return a column with mean 0 and deviation 1."""
    return floats((column - column.mean()) / column.std())


def floats(values: np.ndarray) -> Tensor:
    """Return the values as a float32 tensor."""
    return torch.from_numpy(np.asarray(values, np.float32))


FUNCTIONS = {"f0": 1, "f1": 1, "f2": 1}
TABLES = (
    TableProblem("toy", toy, {"y1": 1, "y2": 1}, hidden=(64,)),
    TableProblem(
        "diabetes",
        diabetes,
        {"progression": 1, "bmi": 1, "blood pressure": 1, "sex": 2},
        hidden=(32,),
        num_rows=265,
        learning_rate=1e-3,
    ),
    TableProblem(
        "wine", wine, {"cultivar": 3, "alcohol": 1, "proline": 1}, hidden=(32,), num_rows=106
    ),
    TableProblem("digits", digits, {"digit": 10, "centre": 1, "noisy ink": 1}, num_rows=1078),
    TableProblem("noise 0.1, 1 and 10", partial(generated, noise=(0.1, 1.0, 10.0)), FUNCTIONS),
    TableProblem(
        "units 0.001, 1 and 1000",
        partial(generated, noise=(0.5, 0.5, 0.5), scale=(1e-3, 1.0, 1e3)),
        FUNCTIONS,
    ),
    TableProblem("one task in 5% of rows", rare, FUNCTIONS),
    # With so few rows, the loss of the task without noise goes to 0.
    TableProblem(
        "one task without noise",
        partial(generated, noise=(0.0, 0.5, 0.5), num_rows=128),
        FUNCTIONS,
        num_rows=128,
        epochs=600,
    ),
)
