"""What a run chooses by itself where nothing was asked for, from its data and its machine, and how it says so."""

from __future__ import annotations

import torch

from model.training.settings.config import TrainingPrecision

FEW_PICTURES = 2_000  # of fewer a large network learns nothing from ImageNet weights within the published epochs
COCO_WEIGHTS = "facebook/detr-resnet-50"
_ROOM = 1.25  # queries for each object of the fullest picture: some always stay unused
_QUERIES_STEP = 25
_MOST_QUERIES = 1_000  # more make every step slow: the decoder's attention grows with their square


def has_gpu(accelerator: str) -> bool:
    """Whether a run on `--accelerator` computes on a GPU."""
    return torch.accelerator.is_available() if accelerator == "auto" else accelerator != "cpu"


def fast_precision(accelerator: str) -> TrainingPrecision:
    """bf16-mixed where the device has instructions for bfloat16, 32-true elsewhere, where it would be slower.

    A GPU of NVIDIA has them from compute capability 8.0 on, a CPU with AMX or AVX-512 BF16.
    """
    if has_gpu(accelerator):
        fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if fast else "32-true"


def why_small(pictures: int, accelerator: str) -> str | None:
    """Why a run that starts from nothing should train a small network; None where it should not."""
    reasons = [
        *([f"there are only {pictures:,} pictures"] if pictures < FEW_PICTURES else []),
        *(["there is no GPU to train on"] if not has_gpu(accelerator) else []),
    ]
    return " and ".join(reasons) or None


def small_note(reason: str) -> str:
    """What the recipe for small data was chosen for, and what would be instead of it."""
    return (
        f"chosen because {reason}: --init {COCO_WEIGHTS} would fine-tune weights learnt on COCO instead, which is more "
        "accurate but slower, and --recipe detr-300 would start a DETR-R50 from ImageNet weights, for which a GPU and "
        "many thousands of pictures are needed"
    )


def queries_for(objects: int, queries: int) -> int:
    """How many object queries a fresh network should have, where a picture has so many objects at most.

    Those of the preset or recipe, `queries`, or, where there are more objects, a quarter more than these, in steps of
    25, up to 1,000.
    """
    if objects <= queries:
        return queries
    wanted = -(-int(objects * _ROOM) // _QUERIES_STEP) * _QUERIES_STEP
    return max(queries, min(wanted, _MOST_QUERIES))
