"""A name on the hub leads to an artifact, once downloaded and then from the cache, whatever becomes of the hub."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from model.hub import finding
from model.hub.names import HubError, HubName
from model.runtime.artifact.file import Artifact
from service.cli import main
from tests.fake_hub import FakeHub
from tests.model.hub.conftest import CONFIG, NAME, PATIENCE_S, REPOSITORY, Machine

WEIGHTS = "model.safetensors"


def test_a_name_is_downloaded_and_imported_with_its_commit_and_digest(
    machine: Machine, hub: FakeHub, weights: bytes
) -> None:
    answer = machine.ask()
    assert answer.path is not None
    assert answer.path.read_bytes() == machine.artifact.read_bytes()
    (imported,) = machine.imports()
    assert imported["name"] == "detr-resnet-50"
    digest = hashlib.sha256(weights).hexdigest()
    assert imported["provenance"] == {"source": NAME, "revision": hub.repositories[NAME].refs["main"], "sha256": digest}
    # What nothing reads is not downloaded.
    assert imported["files"] == ["config.json", WEIGHTS, "preprocessor_config.json"]
    assert any(line.startswith("INFO downloading") for line in answer.lines)
    assert f"INFO {NAME}: a note" in answer.lines


def test_the_next_start_downloads_and_imports_nothing(machine: Machine, hub: FakeHub) -> None:
    first = machine.ask().path
    hub.requests.clear()
    assert machine.ask().path == first
    assert hub.downloads(WEIGHTS) == 0
    assert len(machine.imports()) == 1


@pytest.mark.parametrize("kept", ["both caches", "artifacts only"])
@pytest.mark.parametrize("trouble", ["offline", "unreachable", "503", "429"])
def test_what_was_had_once_is_had_without_the_hub(machine: Machine, hub: FakeHub, kept: str, trouble: str) -> None:
    first = machine.ask().path
    assert first is not None
    if kept == "artifacts only":
        shutil.rmtree(machine.folder / "hf")
    environment = {}
    if trouble == "offline":
        environment = {"HF_HUB_OFFLINE": "1"}
    elif trouble == "unreachable":
        environment = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    else:
        hub.status = int(trouble)
    again = machine.ask(**environment)
    assert again.path == first
    assert any("is the commit that was taken last" in line for line in again.lines)
    assert (trouble == "offline") == (again.warnings == [])  # which somebody has wished
    assert len(machine.imports()) == 1


def test_a_branch_that_moved_is_followed_and_a_commit_is_not_left(machine: Machine, hub: FakeHub) -> None:
    old = hub.repositories[NAME].refs["main"]
    first = machine.ask().path
    new = hub.push(NAME, {"config.json": CONFIG, WEIGHTS: b"newer weights"})
    second = machine.ask().path
    assert first != second
    assert [entry["provenance"]["revision"] for entry in machine.imports()] == [old, new]
    assert machine.ask(f"{NAME}@{old}").path == first
    assert machine.ask(NAME, old).path == first
    assert machine.ask().path == second


def test_a_revision_may_be_a_tag_or_a_pull_request(machine: Machine, hub: FakeHub) -> None:
    tagged = hub.push(NAME, {"config.json": CONFIG, WEIGHTS: b"tagged"}, "v1.0")
    proposed = hub.push(NAME, {"config.json": CONFIG, WEIGHTS: b"proposed"}, "refs/pr/3")
    assert machine.ask(NAME, "v1.0").path is not None
    assert machine.ask(f"{NAME}@refs/pr/3").path is not None
    assert [entry["provenance"]["revision"] for entry in machine.imports()] == [tagged, proposed]
    assert "names a revision already, and --revision names v1.0" in machine.ask(f"{NAME}@refs/pr/3", "v1.0").refusal


def test_weights_in_several_files_have_a_digest_each(machine: Machine, hub: FakeHub) -> None:
    shards = {f"model-0000{number}-of-00002.safetensors": b"shard %d" % number for number in (1, 2)}
    hub.push(NAME, {"config.json": CONFIG, "model.safetensors.index.json": b"{}", **shards})
    assert machine.ask().path is not None
    (imported,) = machine.imports()
    assert imported["provenance"]["sha256"] == {name: hashlib.sha256(shards[name]).hexdigest() for name in shards}
    assert set(imported["files"]) == {"config.json", "model.safetensors.index.json", *shards}


def test_what_is_on_this_machine_comes_before_the_hub(
    machine: Machine, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machine.folder / "facebook" / "detr-resnet-50"
    here.parent.mkdir()
    here.write_bytes(b"a file that is called like a model")
    asked = machine.ask(str(here))
    assert asked.path == here
    assert machine.ask(str(here), "v1").refusal.endswith("and --revision v1 is for names on the hub")
    assert hub.requests == []


def test_a_folder_is_imported_once_and_again_when_it_changes(machine: Machine, hub: FakeHub) -> None:
    folder = machine.folder / "mine"
    folder.mkdir()
    (folder / "config.json").write_bytes(CONFIG)
    (folder / WEIGHTS).write_bytes(b"mine")
    first = machine.ask(str(folder)).path
    assert first == machine.ask(str(folder)).path
    (imported,) = machine.imports()
    assert imported["name"] == "mine"
    (folder / WEIGHTS).write_bytes(b"mine, trained further")
    assert machine.ask(str(folder)).path != first
    assert hub.requests == []


def test_a_file_of_weights_is_imported_by_its_own_name(machine: Machine, hub: FakeHub) -> None:
    for name, content in {"mine": b"mine", "other": b"of another"}.items():
        (machine.folder / f"{name}.safetensors").write_bytes(content)
    mine, other = (machine.ask(str(machine.folder / f"{name}.safetensors")).path for name in ("mine", "other"))
    assert mine != other
    assert [entry["name"] for entry in machine.imports()] == ["mine", "other"]
    assert hub.requests == []


def test_an_artifact_that_was_damaged_in_the_cache_is_made_anew(machine: Machine) -> None:
    path = machine.ask().path
    assert path is not None
    path.write_bytes(path.read_bytes()[:-1])
    again = machine.ask()
    assert again.path == path
    assert path.read_bytes() == machine.artifact.read_bytes()
    assert any("made anew" in warning for warning in again.warnings)


def test_starts_at_the_same_time_do_not_disturb_each_other(machine: Machine) -> None:
    processes = [
        subprocess.Popen(
            machine.command(NAME), env=machine.environment(), cwd=REPOSITORY, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    said = {process.communicate(timeout=PATIENCE_S)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    (path,) = said
    assert Path(path).read_bytes() == machine.artifact.read_bytes()
    assert [entry.name for entry in Path(path).parent.iterdir()] == [Path(path).name]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("detr-resnet-50", "detr fetch detr-resnet-50"),
        ("detr-resnet-50", "on the hub it is facebook/detr-resnet-50"),
        ("detr-resnet-50-dc5-panoptic", "detr fetch detr-resnet-50-dc5-panoptic"),
        ("table-transformer-detection", "no file table-transformer-detection: on the hub it is microsoft/table-"),
        ("detr", "a name on the hub is OWNER/NAME (see detr models)"),
        ("no-one/nothing", "no model no-one/nothing on the hub"),
        ("a--b/c", "cannot be a name on the hub"),
        (f"{NAME}@v9", "has no revision v9"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_line_that_says_what_to_do(machine: Machine, name: str, words: str) -> None:
    assert words in machine.ask(name).refusal


@pytest.mark.parametrize(
    "command", ["evaluate --data shapes --root . --model", "quantize --images . --out out.onnx --unchecked"]
)
def test_other_commands_follow_a_name_too(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[HubName] = []

    def refuse(name: HubName, _: object) -> Artifact:
        asked.append(name)
        raise HubError("refused")

    monkeypatch.chdir(tmp_path)
    for name in ("annotations/panoptic_val2017.json", "annotations/panoptic_val2017/1.png", "val2017/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(finding, "find_on_hub", refuse)
    with pytest.raises(SystemExit, match=rf"^detr {command.partition(' ')[0]}: refused$"):
        main([*command.split(), f"{NAME}@v1"])
    assert asked == [HubName(NAME, "v1")]
    here = tmp_path / NAME
    here.mkdir(parents=True)
    assert finding.path_of(Path(NAME)) == Path(NAME)


@pytest.mark.parametrize("path", ["missing.onnx", "runs/model.onnx", "./facebook/detr-resnet-50", "a/b/c", "/nowhere"])
def test_what_looks_like_a_path_is_left_to_whoever_reads_the_file(machine: Machine, hub: FakeHub, path: str) -> None:
    assert machine.ask(path).path == Path(path)
    assert hub.requests == []
