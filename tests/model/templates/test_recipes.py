import numpy as np
import pytest
import torch
from torch.nn.utils.fusion import fuse_conv_bn_weights

from model.runtime.preprocess import Normalization
from model.templates.recipes import followed

NORMALIZATION = Normalization((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
SIZES = {"num_queries": 7, "num_logits": 4}


def state_of(seed: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    rng = np.random.default_rng(seed)
    vectors = {f"bn.{name}": rng.normal(size=300) for name in ("weight", "bias", "running_mean")}
    variance = {"bn.running_var": rng.uniform(1e-6, 3, size=300)}
    arrays = vectors | variance | {"conv.weight": rng.normal(size=(300, 5, 3, 3)), "matrix": rng.normal(size=(3, 4))}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_norm_is_folded_as_torch_folds_it(seed: int) -> None:
    state = state_of(seed)
    tensors = {key: torch.from_numpy(array) for key, array in state.items()}
    mean, variance = tensors["bn.running_mean"], tensors["bn.running_var"]
    gain, shift = tensors["bn.weight"], tensors["bn.bias"]
    weight, bias = fuse_conv_bn_weights(tensors["conv.weight"], None, mean, variance, 1e-5, gain, shift)
    for kind, expected in (("folded_weight", weight), ("folded_bias", bias)):
        found = followed([kind, "conv", "bn"], state, SIZES, NORMALIZATION)
        assert found.dtype == np.float32
        # A processor may round reciprocal roots in its own way; everywhere else they are equal.
        np.testing.assert_array_max_ulp(found, expected.detach().numpy(), maxulp=2)


def test_weights_are_taken_moved_and_reshaped() -> None:
    state = state_of(0)
    matrix = state["matrix"]
    assert followed(["weight", "matrix"], state, SIZES, NORMALIZATION) is matrix
    np.testing.assert_array_equal(followed(["transposed", "matrix"], state, SIZES, NORMALIZATION), matrix.T)
    reshaped = followed(["reshaped", "matrix", [2, 6]], state, SIZES, NORMALIZATION)
    np.testing.assert_array_equal(reshaped, matrix.reshape(2, 6))


def test_normalization_and_sizes_are_the_models_own() -> None:
    mean = followed(["mean", [3, 1, 1]], {}, SIZES, NORMALIZATION)
    np.testing.assert_array_equal(mean, np.array([[[0.1]], [[0.2]], [[0.3]]], np.float32))
    np.testing.assert_array_equal(
        followed(["deviation", [3]], {}, SIZES, NORMALIZATION), np.array([0.4, 0.5, 0.6], np.float32)
    )
    sizes = followed(["sizes", [-1, "num_queries", 8, "num_logits"]], {}, SIZES, NORMALIZATION)
    assert sizes.dtype == np.int64
    assert sizes.tolist() == [-1, 7, 8, 4]


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(ValueError, match="does not know"):
        followed(["soup", "matrix"], state_of(0), SIZES, NORMALIZATION)
