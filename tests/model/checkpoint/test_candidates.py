"""Weights are found behind any wrapper and prefix, and of several it is said which are taken."""

from itertools import permutations
from typing import Any

import pytest
import torch

from model.checkpoint.candidates import choose
from model.checkpoint.errors import CheckpointError

DETECTOR = {
    "transformer.encoder.layers.0.linear1.weight": torch.ones(1),
    "transformer.decoder.layers.0.linear1.weight": torch.ones(2),
    "class_embed.weight": torch.ones(3),
    "backbone.0.body.conv1.weight": torch.ones(4),
}
PANOPTIC = {f"detr.{key}": tensor for key, tensor in DETECTOR.items()} | {"mask_head.lay1.weight": torch.ones(5)}
TRANSFORMERS = {
    "model.encoder.layers.0.fc1.weight": torch.ones(1),
    "model.decoder.layers.0.fc1.weight": torch.ones(2),
    "model.backbone.conv_encoder.model.conv1.weight": torch.ones(3),
    "class_labels_classifier.weight": torch.ones(4),
}
TRANSFORMERS_PANOPTIC = {f"detr.{key}": t for key, t in TRANSFORMERS.items()} | {"mask_head.lay1.bias": torch.ones(5)}
NETWORKS = [DETECTOR, PANOPTIC, TRANSFORMERS, TRANSFORMERS_PANOPTIC]
PREFIXES = ["module.", "_orig_mod.", "model.", "detr."]
State = dict[str, Any]


def behind(prefix: str, state: State) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_any_prefixes_in_any_order_are_taken_off(network: State, count: int) -> None:
    for prefixes in permutations(PREFIXES, count):
        assert choose({"state_dict": behind("".join(prefixes), network)})[0].state == network, prefixes


@pytest.mark.parametrize(
    "wrappers",
    [("state_dict",), ("model_state_dict",), ("model",), ("ema",), ("ema_state_dict", "module"), ("a", "b", "c"), ()],
)
def test_any_wrappers_are_looked_through(wrappers: tuple[str, ...]) -> None:
    content: State = DETECTOR
    for wrapper in reversed(wrappers):
        content = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}}, wrapper: content}
    chosen, notes = choose(content)
    assert (chosen.name, chosen.state, notes) == (".".join(wrappers), DETECTOR, ())


def test_parts_that_were_compiled_or_wrapped_on_their_own_have_their_names_back() -> None:
    state = dict(DETECTOR)
    state["backbone._orig_mod.0._fsdp_wrapped_module.body.conv1.weight"] = state.pop("backbone.0.body.conv1.weight")
    assert choose(state)[0].state == DETECTOR
    with pytest.raises(CheckpointError, match=r"two of its keys mean class_embed\.weight"):
        choose({**state, "_orig_mod.class_embed.weight": torch.ones(1)})


def test_what_belongs_to_the_loss_is_left_out_and_said() -> None:
    lightning = behind("model.", DETECTOR) | {"criterion.empty_weight": torch.ones(6)}
    chosen, notes = choose({"state_dict": lightning})
    assert chosen.state == DETECTOR
    assert notes == ("left out, as it is of the loss: criterion.empty_weight",)
    averaged = behind("module.", DETECTOR) | {"n_averaged": torch.tensor(3)}
    assert choose(averaged)[0].state == DETECTOR


def test_a_key_that_has_not_the_prefix_of_all_others_keeps_its_name() -> None:
    state = behind("model.", DETECTOR) | {"surprise.weight": torch.ones(1)}
    assert choose(state)[0].state == DETECTOR | {"surprise.weight": state["surprise.weight"]}


def test_the_average_is_taken_of_several_unless_another_is_named() -> None:
    other = {key: tensor + 1 for key, tensor in DETECTOR.items()}
    content = {"model": DETECTOR, "ema": {"module": behind("module.", other)}}
    chosen, notes = choose(content)
    assert chosen.state == other
    assert notes == ("weights: ema.module.module; there are also model (--weights takes those)",)
    assert choose(content, "model")[0].state == DETECTOR
    assert choose(content, "ema")[0].state == choose(content, "ema.module.module")[0].state == other
    with pytest.raises(
        CheckpointError, match=r"--weights best names none of the weights in it, which are model, ema\."
    ):
        choose(content, "best")


def test_networks_side_by_side_in_one_dictionary_are_told_apart() -> None:
    other = {key: tensor + 1 for key, tensor in DETECTOR.items()}
    for first, second in (("", "ema."), ("model.", "ema_model."), ("model.", "model.teacher.")):
        content = {"state_dict": behind(first, DETECTOR) | behind(second, other)}
        way = "state_dict." + second.removesuffix(".")
        assert choose(content, way)[0].state == other
        assert choose(content, ("state_dict." + first).removesuffix("."))[0].state == DETECTOR


def test_an_average_that_lacks_the_statistics_of_the_backbone_is_not_taken_by_itself() -> None:
    part = {key: tensor for key, tensor in DETECTOR.items() if "backbone" not in key}
    assert choose({"model": DETECTOR, "ema": part})[0].name == "model"


def test_a_content_without_a_detr_is_refused_by_what_it_is() -> None:
    itself: State = {"epoch": 3}
    itself["self"] = itself
    for content, reason in (
        ({"epoch": 1, "state_dict": {"conv1.weight": torch.ones(1)}}, r"\(the first are: conv1\.weight\)"),
        ({"model": [1]}, "its entry 'model' is a list"),
        ({}, "the first are: none"),
        (itself, "its entry 'epoch' is no tensor"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            choose(content)
