"""The model files that the serving benchmark compares, made once and kept in a folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from model.checkpoint.reading import read_checkpoint
from model.export import export
from model.network.build import build_model
from model.network.config import PRESETS
from model.network.nested_tensor import NestedTensor
from model.runtime.answers.detections import best_real_class
from model.runtime.artifact.file import read_artifact
from model.runtime.decode import decode
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import NO_MASKS
from model.runtime.preprocess import make_batch, resize
from service.images.answers import TaskName
from tests.benchmarks.baselines.eager import LIMITS
from tests.benchmarks.baselines.pipelines import save_folder
from tests.model.networks import filled

PANOPTIC, DETECTOR = "detr-resnet-50-panoptic", "detr-resnet-50"


@dataclass(frozen=True)
class Files:
    """DETR R50 with the weights of the parity data, in every form that is served here."""

    folder: Path

    def checkpoint(self, preset: str = PANOPTIC) -> Path:
        """As the published models come."""
        path = self.folder / f"{preset}.pth"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            torch.save({"model": filled(PRESETS[preset]).state_dict()}, path)
        return path

    def artifact(self, preset: str = PANOPTIC, padding: str = "exact") -> Path:
        """As the service takes it."""
        path = self.folder / (f"{preset}.onnx" if padding == "exact" else f"{preset}-{padding}.onnx")
        if not path.exists():
            export(read_checkpoint(self.checkpoint(preset)), path, padding=padding)
        return path

    def transformers(self, kind: TaskName) -> Path:
        """As the pipelines of transformers take it."""
        folder = self.folder / f"transformers-{kind}"
        if not (folder / "preprocessor_config.json").exists():
            save_folder(self.checkpoint(), kind, folder)
        return folder


def threshold_that_keeps(artifact: Path, pictures: list[bytes], queries: float) -> float:
    """The score above which that many queries of a picture are kept, on average."""
    read = read_artifact(artifact)
    engine = open_engine(read, "cpu")
    scores = []
    for picture in pictures:
        batch = make_batch([resize(decode(picture, LIMITS), read.metadata.resize)])
        outputs = engine.infer(batch, np.array([NO_MASKS], dtype=np.float32))
        scores.append(best_real_class(outputs.pred_logits[0])[0])
    ordered = np.sort(np.concatenate(scores))[::-1]
    position = round(queries * len(pictures))
    return float((ordered[position - 1] + ordered[position]) / 2)


def detector_flops(height: int, width: int) -> int:
    """Floating-point operations of the R50 detector on one image, a multiply and an add counted as two."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):  # shapes without numbers, so that nothing is computed
        detector = build_model(replace(PRESETS[DETECTOR], padding="published"))
        detector.eval().requires_grad_(False)
        image = NestedTensor(torch.zeros((1, 3, height, width)), torch.zeros((1, height, width), dtype=torch.bool))
        with FlopCounterMode(display=False) as counter:
            detector(image)
    return int(counter.get_total_flops())
