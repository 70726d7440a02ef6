"""`detr train`, from the command line to the checkpoint."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model.checkpoint.reading import read_checkpoint
from model.checkpoint.saving import save_checkpoint
from model.checkpoint.strict import Checkpoint
from model.data.collate import TrainingBatch
from model.data.shapes.command import CATEGORIES, write_shapes
from model.evaluation.evaluator import Evaluator
from model.hub.weights import HubWeights
from model.network.config import PRESETS
from model.runtime.resize_rule import Edges
from model.train import open_data
from model.training.logs.log import read_log
from model.training.logs.notes import Notes
from model.training.module import TrainingModule
from model.training.provenance import command_line
from model.training.settings.recipes import RECIPES
from service.cli import main
from tests.model.networks import SMALL, filled

TINY = replace(SMALL, resize=Edges(64, 96))

Train = Callable[..., Path]


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command builds is small enough to train in a test."""
    monkeypatch.setitem(PRESETS, "detr-demo", TINY)


@pytest.fixture
def train(tiny_shapes: Path, tmp_path: Path) -> Train:
    """Runs the command for three steps, or as told; returns its folder."""

    def run(*options: str, out: str = "out", root: Path = tiny_shapes, steps: int = 3) -> Path:
        words = ["--data", "shapes", "--root", str(root), "--out", str(tmp_path / out), "--steps", str(steps)]
        words += ["--batch-size", "2", "--workers", "0", "--log-every", "1", "--evaluate-every", "0"]
        main(["train", *words, *options])
        return tmp_path / out

    return run


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    """A checkpoint to start from, as the first stage writes one."""
    config = replace(TINY, masks=False)
    path = tmp_path / "detector.safetensors"
    save_checkpoint(path, filled(config).state_dict(), config, CATEGORIES, {"command": "detr train"})
    return path


@pytest.fixture
def steps_taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """Step and learning rate of every training step."""
    taken: list[tuple[int, float]] = []
    real = TrainingModule.training_step

    def recorded(self: TrainingModule, parts: list[TrainingBatch], batch_index: int) -> None:
        taken.append((self.global_step, self.trainer.optimizers[0].param_groups[0]["lr"]))
        real(self, parts, batch_index)

    monkeypatch.setattr(TrainingModule, "training_step", recorded)
    return taken


def figures(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, but for the first, which holds the settings."""
    return read_log(out / "log.jsonl")[1:]


def error_line(raised: pytest.ExceptionInfo[SystemExit]) -> str:
    """What the user sees: one line that begins with the command."""
    message = str(raised.value.code)
    assert message.startswith("detr train: ")
    assert "\n" not in message
    return message.removeprefix("detr train: ")


def weights_differ(first: Checkpoint[torch.Tensor], second: Checkpoint[torch.Tensor]) -> set[str]:
    assert first.state_dict.keys() == second.state_dict.keys()
    return {key for key, tensor in first.state_dict.items() if not torch.equal(tensor, second.state_dict[key])}


def test_training_writes_a_checkpoint_that_says_what_it_is(train: Train, tmp_path: Path) -> None:
    out = train("--lr", "0.001", "--lr-backbone", "0.002", "--precision", "bf16-mixed", "--augment", "flip", "colour")
    checkpoint = read_checkpoint(out / "model.safetensors")
    assert checkpoint.config == replace(TINY, masks=False)
    assert checkpoint.categories == CATEGORIES
    assert checkpoint.provenance["images"] == 6
    assert checkpoint.provenance["torch"] == torch.__version__
    assert checkpoint.provenance["init"] is None
    training = checkpoint.provenance["training"]
    assert (training["steps"], training["lr"], training["lr_backbone"]) == (3, 0.001, 0.002)
    assert (checkpoint.provenance["recipe"], checkpoint.provenance["steps"]) == ("demo", 3)
    command = checkpoint.provenance["command"]
    assert command.startswith("detr train --data shapes --root tiny-shapes")
    assert " --out out " in command
    for words in ("--steps 3", "--batch-size 2", "--lr 0.001", "--lr-backbone 0.002", "--augment flip colour"):
        assert words in command
    assert "/" not in json.dumps(checkpoint.provenance), "a path of this machine"
    rows = figures(out)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert {"loss", "loss_ce", "loss_bbox", "loss_giou", "class_error", "cardinality_error", "lr"} <= set(rows[0])


def test_the_seed_decides_everything(train: Train) -> None:
    runs = {
        name: read_checkpoint(train("--seed", seed, out=name, steps=1) / "model.safetensors")
        for name, seed in (("first", "1"), ("again", "1"), ("other", "2"))
    }
    assert weights_differ(runs["first"], runs["again"]) == set()
    assert weights_differ(runs["first"], runs["other"])


def test_masks_are_learnt_over_a_detector_that_stays_as_it_is(train: Train, detector: Path) -> None:
    out = train("--stage", "masks", "--init", str(detector), "--lr", "0.01")
    before, after = read_checkpoint(detector), read_checkpoint(out / "model.safetensors")
    assert after.config == TINY
    kept = {key.removeprefix("detr.") for key in after.state_dict if key.startswith("detr.")}
    assert kept == before.state_dict.keys()
    assert all(torch.equal(before.state_dict[key], after.state_dict[f"detr.{key}"]) for key in kept)
    assert after.provenance["init"] == {"source": "detector.safetensors", "sha256": before.sha256}


def test_masks_can_go_on_from_masks(train: Train, detector: Path) -> None:
    first = train("--stage", "masks", "--init", str(detector), out="first", steps=1) / "model.safetensors"
    again = train("--stage", "masks", "--init", str(first), "--lr", "1e-9", out="again", steps=1) / "model.safetensors"
    one, two = read_checkpoint(first).state_dict, read_checkpoint(again).state_dict
    torch.testing.assert_close(two, one, atol=1e-6, rtol=0)


def test_a_run_resumes_at_its_step_with_the_rate_of_its_new_length(
    train: Train, steps_taken: list[tuple[int, float]]
) -> None:
    out = train("--lr", "0.001", "--save-every", "2", steps=7)
    assert [step for step, _ in steps_taken] == [0, 1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in (out / "resume").iterdir()) == ["last.ckpt"]
    steps_taken.clear()
    train("--lr", "0.001", "--resume", str(out), steps=8)
    assert [step for step, _ in steps_taken] == [6, 7]
    # Of eight steps the last 3.2 fall, and the first 500 would rise.
    assert [rate for _, rate in steps_taken] == pytest.approx([0.001 * min(7 / 500, 2 / 3.2), 0.001 * 8 / 500])
    assert read_checkpoint(out / "model.safetensors").provenance["training"]["steps"] == 8


def test_a_folder_that_holds_a_run_is_not_written_over(train: Train) -> None:
    out = train()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as raised:
        train()
    assert error_line(raised) == f"{out} holds a run: go on with it (--resume {out}), or give another folder (--out)"
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_run_that_is_told_no_folder_takes_the_next_number(
    tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "2").mkdir(parents=True)  # in which nothing is
    words = ["train", "--data", "shapes", "--root", str(tiny_shapes), "--steps", "1", "--batch-size", "2"]
    words += ["--workers", "0", "--evaluate-every", "0", "--skip-check"]
    for _ in range(2):
        main(words)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("model.safetensors")) == [
        "runs/1/model.safetensors",
        "runs/2/model.safetensors",
    ]
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("FOLDER_OF_DETR_TRAIN")
    with pytest.raises(SystemExit) as raised:
        main(words)
    assert error_line(raised).startswith("several processes need --out")


def test_validation_keeps_the_best_weights_draws_samples_and_logs_ap_and_pq(train: Train, detector: Path) -> None:
    out = train(
        "--stage", "joint", "--init", str(detector), "--recipe", "demo", "--evaluate-every", "0.7", "--ema", "0.5"
    )
    validated = [row for row in figures(out) if "AP" in row]
    assert [row["step"] for row in validated] == [2, 3], "every 0.7 epochs of 3 batches, and at the end"
    assert all(0 <= row[name] <= 1 for row in validated for name in ("PQ", "PQ_raw"))
    last = read_checkpoint(out / "model.safetensors").provenance
    assert last["measured"]["PQ"] == pytest.approx(validated[-1]["PQ"], abs=1e-4)
    best = read_checkpoint(out / "best.safetensors").provenance
    better = max(row[name] for row in validated for name in ("PQ", "PQ_raw"))
    assert best["measured"]["PQ"] == pytest.approx(better, abs=1e-4)
    assert validated[-1]["best"] == better
    assert sorted(path.name for path in (out / "samples").iterdir()) == ["step-000002.jpg", "step-000003.jpg"]
    assert list((out / "tensorboard").glob("events.*"))


@pytest.mark.parametrize("stage", ["masks", "joint"])
def test_the_best_of_masks_learnt_from_polygons_has_the_highest_ap_of_masks(
    train: Train,
    detector: Path,
    stage: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """AP of boxes cannot change where the detector is frozen, so the first validation would be the best by it."""
    real, of_masks = Evaluator.figures, iter([0.1, 0.3, 0.2])
    monkeypatch.setattr(Evaluator, "figures", lambda self: real(self) | {"AP": 0.5, "AP_mask": next(of_masks)})
    start = ("--data", "coco", "--stage", stage, "--init", str(detector), "--recipe", "demo")
    out = train(*start, "--evaluate-every", "0.34", "--samples", "0")
    validated = [row for row in figures(out) if "AP" in row]
    assert [(row["step"], row["AP"], round(row["AP_mask"], 4)) for row in validated] == [
        (1, 0.5, 0.1),
        (2, 0.5, 0.3),
        (3, 0.5, 0.2),
    ]
    best = read_checkpoint(out / "best.safetensors").provenance
    assert (best["steps"], best["measured"]["AP_mask"], best["measured"]["AP"]) == (2, 0.3, 0.5)
    printed = capsys.readouterr()
    assert "best.safetensors will hold the weights with the highest AP of masks in validation" in printed.out
    assert "AP 0.500  AP_mask 0.300" in printed.err


def test_a_validation_without_objects_says_why_it_has_no_figures(
    train: Train, tiny_shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(tiny_shapes, tmp_path / "crowds")
    path = root / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text().replace('"iscrowd":0', '"iscrowd":1'))
    out = train(
        "--data", "coco", "--evaluate-every", "1", "--recipe", "demo", "--samples", "0", "--skip-check", root=root
    )
    printed = capsys.readouterr()
    assert re.search(r"validation: AP is undefined, because all \d+ annotations of .* are crowds", printed.out)
    assert "there will be no best.safetensors" in printed.out
    kept = (out / "notes.txt").read_text().splitlines()
    assert re.match(r"\d{4}-.* detr train .*--skip-check", kept[0])
    assert [line for line in printed.out.splitlines() if not line.startswith("wrote ")] == kept[1:-1]
    assert "AP –" in printed.err
    (validated,) = (row for row in figures(out) if "AP" in row)
    assert validated["AP"] is None
    assert not (out / "best.safetensors").exists()
    assert read_checkpoint(out / "model.safetensors").provenance["measured"] == {}
    with pytest.raises(SystemExit) as raised:
        train("--data", "coco", "--evaluate-every", "1", "--recipe", "demo", root=root, out="checked")
    assert re.search(
        r"no object .*: all its \d+ annotations are crowds \(iscrowd 1\).*--evaluate-every 0", error_line(raised)
    )


@pytest.mark.slow
def test_ids_of_annotations_change_nothing_of_a_run(train: Train, tiny_shapes: Path, tmp_path: Path) -> None:
    """COCO's evaluator takes 0 for no match, and of equal ids the last."""
    runs = {}
    for name, first, step in (("usual", 1, 1), ("from_0", 0, 1), ("equal", 7, 0)):
        root = shutil.copytree(tiny_shapes, tmp_path / name)
        for path in (root / "annotations").glob("instances_*.json"):
            content = json.loads(path.read_text())
            for number, entry in enumerate(content["annotations"]):
                entry["id"] = first + step * number
            path.write_text(json.dumps(content))
        options = ("--data", "coco", "--recipe", "demo", "--lr", "0.001", "--evaluate-every", "1", "--samples", "0")
        out = train(*options, root=root, out=f"run_{name}", steps=9)
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in figures(out)]
        runs[name] = (rows, read_checkpoint(out / "best.safetensors"))
    rows, best = runs["usual"]
    assert sum("AP" in row for row in rows) == 3
    for name in ("from_0", "equal"):
        assert runs[name][0] == rows
        assert runs[name][1].provenance["steps"] == best.provenance["steps"]
        assert weights_differ(runs[name][1], best) == set()


def test_a_moving_average_is_saved_beside_the_weights_themselves(train: Train) -> None:
    def weights(out: Path, name: str = "model") -> torch.Tensor:
        return read_checkpoint(out / f"{name}.safetensors").state_dict["class_embed.weight"]

    rate = ("--lr", "0.01", "--warmup-steps", "0", "--lr-turn", "1")
    plain = [weights(train(*rate, out=f"plain-{steps}", steps=steps)) for steps in (1, 2, 3)]
    averaged = train(*rate, "--ema", "0.999", out="averaged")
    assert torch.equal(weights(averaged, "model-raw"), plain[2])
    # The average begins with the first step's weights, and keeps little of itself at first.
    second = plain[0] + (plain[1] - plain[0]) * (1 - 2 / 11)
    torch.testing.assert_close(weights(averaged), second + (plain[2] - second) * (1 - 3 / 12))
    assert not (averaged.parent / "plain-3" / "model-raw.safetensors").exists()


def test_a_run_ends_when_validations_get_no_better(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    out = train("--lr", "0", "--lr-backbone", "0", "--evaluate-every", "0.3", "--patience", "2", steps=9)
    assert [row["step"] for row in figures(out) if "AP" in row] == [1, 2, 3]
    assert "ended at step 3 of 9: 2 validations were no better (--patience)" in capsys.readouterr().out


@pytest.fixture
def resumable(train: Train) -> Path:
    """The folder of a run that has seen 2 of 3 steps."""
    out = train("--save-every", "2", "--lr", "0.001", "--samples", "0", out="before")
    (out / "model.safetensors").unlink()
    return out


def test_a_run_goes_on_by_its_folder_alone_and_its_settings_are_its_own(
    resumable: Path, steps_taken: list[tuple[int, float]]
) -> None:
    main(["train", "--resume", str(resumable)])
    assert [step for step, _ in steps_taken] == [2]
    provenance = read_checkpoint(resumable / "model.safetensors").provenance
    assert provenance["training"]["lr"] == 0.001
    assert provenance["recipe"] == "demo"
    command = provenance["command"].split()
    for words in ("--root tiny-shapes", "--lr 0.001", "--samples 0", "--out before", "--steps 3"):
        assert words in provenance["command"]
    assert "--resume" not in command
    with pytest.raises(SystemExit) as raised:
        main(["train", "--resume", str(resumable)])
    assert error_line(raised).startswith("the run is finished, all 3 steps of it")


def test_length_machine_and_place_of_the_data_may_be_others(
    resumable: Path, tiny_shapes: Path, tmp_path: Path, steps_taken: list[tuple[int, float]]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tiny_shapes, moved)
    options = ["--root", str(moved), "--steps", "4", "--workers", "1", "--accelerator", "cpu", "--accumulate", "2"]
    main(["train", "--resume", str(resumable / "resume" / "last.ckpt"), *options])
    assert [step for step, _ in steps_taken] == [2, 3]
    provenance = read_checkpoint(resumable / "model.safetensors").provenance
    assert "--root moved" in provenance["command"]
    assert (provenance["training"]["steps"], provenance["training"]["accumulate"]) == (4, 2)


def test_what_the_weights_came_from_need_not_be_there_any_more(train: Train, detector: Path) -> None:
    out = train("--stage", "masks", "--init", str(detector))
    (out / "model.safetensors").unlink()
    detector.unlink()
    main(["train", "--resume", str(out)])
    assert read_checkpoint(out / "model.safetensors").provenance["init"]["source"] == "detector.safetensors"


def test_a_run_may_start_from_a_name_on_the_hub(
    train: Train, their_detector: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    their_detector.save_pretrained(tmp_path / "snapshot")
    found = HubWeights(tmp_path / "snapshot", "someone/detr@0123abcd")
    monkeypatch.setattr("model.train.weights_on_hub", lambda path: found if path == Path("someone/detr") else None)
    edges = ("--shortest-edge", "64", "--longest-edge", "96")
    out = train("--init", "someone/detr", "--recipe", "demo", *edges, steps=1)
    provenance = read_checkpoint(out / "model.safetensors").provenance
    assert provenance["init"]["source"] == "someone/detr@0123abcd"
    assert "--init someone/detr " in provenance["command"]


def test_an_artifact_is_no_start_and_what_is_one_is_said(train: Train, panoptic_artifact: Path) -> None:
    with pytest.raises(SystemExit) as raised:
        train("--init", str(panoptic_artifact))
    assert error_line(raised).startswith("small.onnx: it is a model file that is exported already")
    assert "give the weights that it was made from, small.safetensors, or a name on the hub" in error_line(raised)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--steps", "2"), "the run is at step 2 already: it must be longer than that"),
        (("--lr", "0.5"), "--lr 0.5 would make it another run, which began with 0.001: leave --lr out"),
        (("--seed", "5"), "--seed 5 would make it another run, which began with 0: leave --seed out"),
        (("--init", "other.pth"), "--init other.pth would make it another run, which began without it: leave --init"),
        (("--data", "coco"), "--data coco would make it another run, which began with shapes: leave --data out"),
        (("--out", "elsewhere"), "a run goes on in its own folder"),
        (("--accumulate", "3"), "--batch-size 2 "),
    ],
)
def test_what_would_make_it_another_run_is_refused(resumable: Path, options: tuple[str, ...], reason: str) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["train", "--resume", str(resumable), *options])
    assert error_line(raised).startswith(reason)


def test_what_a_run_cannot_go_on_from_is_refused(
    resumable: Path, detector: Path, tiny_shapes: Path, tmp_path: Path
) -> None:
    torch.save({"model": {}}, tmp_path / "other.pth")
    (tmp_path / "empty").mkdir()
    for path, reason in (
        (detector, "detector.safetensors is no run to go on with, nor its resume/last.ckpt"),
        (tmp_path / "other.pth", "other.pth is no run to go on with, nor its resume/last.ckpt"),
        (tmp_path / "empty", f"there is nothing to go on with in {tmp_path / 'empty'}"),
        (tmp_path / "none", f"there is nothing to go on with in {tmp_path / 'none'}"),
    ):
        with pytest.raises(SystemExit) as raised:
            main(["train", "--resume", str(path)])
        assert error_line(raised).startswith(reason)
    other = tmp_path / "more"
    write_shapes(other, {"train": 7, "val": 1}, size=64, seed=4)
    with pytest.raises(SystemExit) as raised:
        main(["train", "--resume", str(resumable), "--root", str(other)])
    assert error_line(raised).startswith("the data have changed: 7 pictures with ")


def test_a_run_has_data(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["train", "--out", str(tmp_path)])
    assert error_line(raised).startswith("--data and --root say what to learn from, or --resume RUN")


def test_a_folder_or_file_that_is_missing_is_named(train: Train, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as raised:
        train(root=tmp_path / "nowhere")
    assert error_line(raised) == f"there is no folder {tmp_path / 'nowhere'}"
    with pytest.raises(SystemExit) as raised:
        train("--init", str(tmp_path / "none.pth"))
    assert error_line(raised) == "none.pth: there is no such file"


def test_an_output_that_is_a_file_is_refused_before_training(
    train: Train, tmp_path: Path, steps_taken: list[tuple[int, float]]
) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(SystemExit) as raised:
        train()
    assert "out" in error_line(raised)
    assert steps_taken == []


@pytest.mark.parametrize(
    ("options", "steps", "reason"),
    [
        ((), 0, "--steps should be greater than or equal to 1, not 0"),
        (("--epochs", "1"), 3, "a run has a number of --epochs or of --steps, one of the two"),
        (("--batch-size", "7"), 3, "--batch-size 7 is more than the 6 pictures there are: give less"),
        (("--accumulate", "4"), 3, "--batch-size 2 "),
        (("--lr", "-1"), 3, "--lr should be greater than or equal to 0, not -1.0"),
        (("--freeze", "mask_head"), 3, "--freeze mask_head would keep weights that begin at random"),
        (("--stage", "masks"), 3, "--stage masks needs --init with the detector to freeze"),
        (("--preset", "detr-resnet-50", "--backbone-weights", "none"), 3, "detr-resnet-50 has frozen batch norm"),
        (
            ("--preset", "detr-demo", "--freeze", "stem", "queries"),
            3,
            "--freeze stem queries would keep weights that begin at random, in whole or in part, as they are: "
            "give --freeze instead, or weights for them",
        ),
        (("--precision", "16-mixed", "--accelerator", "cpu"), 3, "--precision 16-mixed needs a GPU"),
        (
            ("--accelerator", "cpu", "--devices", "0"),
            3,
            "--accelerator cpu --devices 0 --nodes 1 cannot be used here",
        ),
    ],
)
def test_options_that_make_no_run_are_refused(train: Train, options: tuple[str, ...], steps: int, reason: str) -> None:
    with pytest.raises(SystemExit) as raised:
        train(*options, steps=steps)
    assert error_line(raised).startswith(reason)


def test_training_that_diverges_says_so(train: Train) -> None:
    with pytest.raises(SystemExit) as raised:
        train("--lr", "1e30")
    assert error_line(raised) == "the network's answer is not finite at step 1: lower the learning rate"


@pytest.mark.parametrize("options", [(), ("--skip-check",), ("--skip-check", "--workers", "1")])
def test_a_broken_picture_is_named_wherever_it_is_read(
    train: Train, tiny_shapes: Path, tmp_path: Path, options: tuple[str, ...], steps_taken: list[tuple[int, float]]
) -> None:
    root = tmp_path / "shapes"
    shutil.copytree(tiny_shapes, root)
    picture = sorted((root / "train2017").iterdir())[3]
    picture.write_bytes(picture.read_bytes()[:300])
    with pytest.raises(SystemExit) as raised:
        train(*options, root=root)
    assert "cannot be decoded" in error_line(raised)
    assert picture.name in error_line(raised)
    assert options or not steps_taken, "found before the first step, unless that was not wanted"


def test_data_without_an_object_is_refused_before_the_first_step(
    train: Train, tiny_shapes: Path, tmp_path: Path, steps_taken: list[tuple[int, float]]
) -> None:
    root = tmp_path / "shapes"
    shutil.copytree(tiny_shapes, root)
    file = root / "annotations" / "panoptic_train2017.json"
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        annotation["segments_info"] = []
    file.write_text(json.dumps(content))
    with pytest.raises(SystemExit) as raised:
        train(root=root)
    assert "has no object in any of its 6 images" in error_line(raised)
    assert not steps_taken


def test_what_is_in_the_data_and_how_much_of_a_batch_is_padding_is_told(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    train("--evaluate-every", "1", "--samples", "0", steps=1)
    said = capsys.readouterr().out
    assert "recipe demo: " in said
    assert "panoptic_train2017.json: 6 images" in said
    assert "panoptic_val2017.json: 4 images" in said
    assert "padding: " in said


def test_a_network_from_scratch_has_queries_for_all_objects_and_a_given_number_is_kept_and_said(
    train: Train, crowded_shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = train("--evaluate-every", "0", root=crowded_shapes, steps=1)
    assert read_checkpoint(out / "model.safetensors").config.num_queries == 25
    assert "more objects" not in capsys.readouterr().out
    out = train("--num-queries", "7", out="few", root=crowded_shapes, steps=1)
    assert read_checkpoint(out / "model.safetensors").config.num_queries == 7
    assert "of 6 pictures there are more objects (up to 20) than the network has queries (7)" in capsys.readouterr().out


def test_weights_of_classes_and_rare_pictures_are_taken_and_said(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--class-weights", "star=3", "--no-object-weight", "0.2", "--cost-box", "1", "--dice-loss-weight", "2")
    out = train(*words, "--repeat-threshold", "1", steps=1)
    assert "class weights: circle 1, square 1, triangle 1, star 3, " in capsys.readouterr().out
    training = read_checkpoint(out / "model.safetensors").provenance["training"]
    assert (training["class_weights"], training["no_object_weight"], training["cost_box"]) == (["star=3"], 0.2, 1)
    with pytest.raises(SystemExit) as raised:
        train("--class-weights", "stars=3", out="misspelt")
    assert error_line(raised) == "--class-weights stars=3: there is no class 'stars'; did you mean star?"


def test_queries_of_a_checkpoint_are_kept_as_far_as_there_are_as_many(train: Train, detector: Path) -> None:
    before = read_checkpoint(detector).state_dict["query_embed.weight"]
    for queries in (4, 12):
        words = ("--init", str(detector), "--num-queries", str(queries), "--lr", "0")
        after = read_checkpoint(train(*words, out=str(queries), steps=1) / "model.safetensors")
        found, same = after.state_dict["query_embed.weight"], min(queries, len(before))
        assert (len(found), after.config.num_queries) == (queries, queries)
        assert torch.equal(found[:same], before[:same])


@pytest.fixture
def crowded_shapes(tiny_shapes: Path, tmp_path: Path) -> Path:
    """A data set of which one picture has twenty objects."""
    root = tmp_path / "crowded"
    shutil.copytree(tiny_shapes, root)
    file = root / "annotations" / "panoptic_train2017.json"
    content = json.loads(file.read_text())
    segments = content["annotations"][0]["segments_info"]
    segments += [{**segments[0], "id": 1_000 + number} for number in range(20 - len(segments))]
    file.write_text(json.dumps(content))
    return root


def test_pictures_are_validated_with_unless_that_is_forbidden(tiny_shapes: Path) -> None:
    nothing_named = dict.fromkeys(("annotations", "images", "val_annotations", "val_images"))
    args = argparse.Namespace(data="shapes", root=tiny_shapes, **nothing_named)
    config = RECIPES["small"].config
    assert config.evaluate_every is None
    notes = Notes(print)
    assert open_data(args, config, notes).val is not None
    assert open_data(args, replace(config, evaluate_every=0), notes).val is None


def test_a_command_is_told_with_names_for_paths() -> None:
    args = argparse.Namespace(
        data="coco", root=Path("/home/someone/data sets"), out=Path("runs/../a"), init=None, lr=1e-4, workers=0,
        skip_check=True, activation_checkpointing=False, freeze=["stem", "queries"], run=print,
    )  # fmt: skip
    assert command_line("train", args) == (
        "detr train --data coco --root 'data sets' --out a --lr 0.0001 --workers 0 --skip-check "
        "--no-activation-checkpointing --freeze stem queries"
    )
