"""How each weight of an exported graph is made from a checkpoint's: as it is, transposed, or with a batch norm in it.

A recipe is a row that begins with its kind:

- `["weight", KEY]`: the checkpoint's weight of that key, as it is;
- `["reshaped", KEY, SHAPE]`: its values in another shape;
- `["transposed", KEY]`: a matrix with its axes exchanged;
- `["folded_weight", CONV, NORM]`, `["folded_bias", CONV, NORM]`: of a convolution without a bias and the batch norm
  behind it, both named by what their keys begin with, the one convolution that does what they do;
- `["mean", SHAPE]`, `["deviation", SHAPE]`: of the normalization;
- `["sizes", NUMBERS]`: int64, in which the names of sizes, such as "num_queries", stand for what they are in the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.runtime.preprocess import Normalization

WeightRecipe = Sequence[Any]
State = Mapping[str, NDArray[np.float32]]

# Of every batch norm of a ResNet here, torchvision's and the published ones alike.
BATCH_NORM_EPSILON = np.float32(1e-5)


def followed(
    recipe: WeightRecipe, state: State, sizes: Mapping[str, int], normalization: Normalization
) -> NDArray[np.float32] | NDArray[np.int64]:
    """The array that a recipe makes. KeyError for a weight that is not there, ValueError for an unknown recipe."""
    match recipe:
        case ["weight", key]:
            return state[key]
        case ["reshaped", key, shape]:
            return state[key].reshape(shape)
        case ["transposed", key]:
            return state[key].T
        case ["folded_weight", conv, norm]:
            return folded_weight(state, conv, norm)
        case ["folded_bias", conv, norm]:
            return folded_bias(state, norm)
        case ["mean", shape]:
            return np.array(normalization.mean, np.float32).reshape(shape)
        case ["deviation", shape]:
            return np.array(normalization.std, np.float32).reshape(shape)
        case ["sizes", numbers]:
            return np.array([sizes[n] if isinstance(n, str) else n for n in numbers], np.int64)
    raise ValueError(f"a template has the recipe {recipe!r}, which this program does not know")


def folded_weight(state: State, conv: str, norm: str) -> NDArray[np.float32]:
    """A convolution's weight [out, in, h, w] times its batch norm's gain, in torch's order of operations."""
    scale = state[f"{norm}.weight"] * _inverse_deviation(state, norm)
    return state[f"{conv}.weight"] * scale[:, None, None, None]


def folded_bias(state: State, norm: str) -> NDArray[np.float32]:
    """The bias [out] of a convolution without one, and of the batch norm behind it, in torch's order of operations."""
    shift = np.float32(0) - state[f"{norm}.running_mean"]
    return shift * _inverse_deviation(state, norm) * state[f"{norm}.weight"] + state[f"{norm}.bias"]


def _inverse_deviation(state: State, norm: str) -> NDArray[np.float32]:
    inverse: NDArray[np.float32] = np.float32(1) / np.sqrt(state[f"{norm}.running_var"] + BATCH_NORM_EPSILON)
    return inverse
