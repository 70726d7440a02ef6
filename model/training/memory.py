"""How much memory a step takes, how much there is, and so in how many parts a batch is computed.

A part's gradients add up to the batch's, so the parts only decide how much is in memory at once. What one picture takes
is measured: its losses are computed once, and the bytes that are kept for the backward pass are counted.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch
from torch import Tensor

from model.data.collate import Draw, collate
from model.data.transforms import TrainTransform
from model.loss.criterion import world_totals
from model.network.build import detector_of
from model.runtime.engines.cgroups import MEMBERSHIP, ROOT, group_folders
from model.runtime.preprocess import CANVAS_MULTIPLE, round_up
from model.training.data import TrainingData, TrainingSet
from model.training.fitting import Hardware
from model.training.module import TrainingModule
from model.training.settings.config import TrainConfig

# What is in memory at once in the backward pass, as a multiple of what was kept for it: gradients of activations and
# workspaces of convolutions come to it. R50 at 800 x 1088 pixels, on a CPU: 2.73 GB for 2.41 GB that were kept.
BACKWARD = 1.15
BACKWARD_RECOMPUTED = 2.0  # with activation checkpointing, which keeps little and computes the rest of a block again
FREE_SHARE = 0.85  # of what is free may be planned with: the rest is for what else runs, and for what is estimated
# What takes less memory, for people.
LESS = (
    "--activation-checkpointing, smaller pictures (--shortest-edge, --longest-edge), a smaller network (--preset), or "
    "fewer --workers take less"
)
LESS_PARTED = f"--accumulate auto computes a batch in as many parts as fit, with the same gradients; {LESS}"
_PREFETCHED = 2  # batches that each process which loads pictures has ready
_GRADIENT_AND_MOMENTS = 3  # what AdamW keeps beside each learnt number: its gradient and two means


@dataclass(frozen=True)
class StepMemory:
    """Bytes that learning takes beyond what the process has before its first step."""

    fixed: int  # gradients, the optimizer's state, the moving average, and pictures that are loaded ahead
    a_picture: int  # of the largest canvas, while it is learnt from

    def of(self, pictures: int) -> int:
        """With so many pictures computed at once."""
        return self.fixed + pictures * self.a_picture


def free_memory(device: torch.device, root: Path = ROOT, membership: Path = MEMBERSHIP) -> int:
    """Bytes that may still be taken: of the GPU, or of the machine, within the limits of groups around the process."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min([psutil.virtual_memory().available, *_free_in_groups(root, membership)])


def _free_in_groups(root: Path, membership: Path) -> Iterator[int]:
    for folder, is_v2 in group_folders("memory", root, membership):
        names = ("memory.max", "memory.current") if is_v2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        with contextlib.suppress(OSError, ValueError):  # a group without a limit has none, or says "max"
            limit, used = (int((folder / name).read_text()) for name in names)
            for line in (folder / "memory.stat").read_text().splitlines():
                name, _, value = line.partition(" ")
                if name in ("inactive_file", "total_inactive_file"):  # which gives way
                    used -= int(value)
                    break
            yield max(0, limit - used)


def step_memory(module: TrainingModule, data: TrainingData) -> StepMemory:
    """What a step takes, on whatever device.

    Computes the losses of one picture on the CPU, which changes nothing of the module and draws no number of the run.
    """
    config, network = module.config, module.network
    learnt = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    whole = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    height, width = max(_canvases(data), key=math.prod)
    loaded = config.batch_size * 3 * height * width * (1 + _PREFETCHED * max(1, config.workers))
    fixed = _GRADIENT_AND_MOMENTS * learnt + (whole if config.ema else 0) + loaded
    factor = BACKWARD_RECOMPUTED if config.activation_checkpointing else BACKWARD
    return StepMemory(fixed, round(factor * _kept_of_a_picture(module, data)))


def _canvases(data: TrainingData) -> list[tuple[int, int]]:
    """Of every picture, resized by the network's own rule, which is the largest that it is learnt at."""
    resized = [data.rule.size(*size) for size in data.train.sizes]
    return [(round_up(height, CANVAS_MULTIPLE), round_up(width, CANVAS_MULTIPLE)) for height, width in resized]


def _kept_of_a_picture(module: TrainingModule, data: TrainingData) -> int:
    """Bytes kept for the backward pass of the picture with the largest canvas and, of these, the most objects."""
    canvases, counts = _canvases(data), data.train.objects.counts
    index = max(range(len(canvases)), key=lambda i: (math.prod(canvases[i]), counts[i]))
    [part] = collate([TrainingSet(data.train, TrainTransform((data.rule,)))[Draw(index, 0)]])
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    queries = detector_of(module.network).query_embed.num_embeddings
    totals = world_totals([module.criterion.totals(part.targets, queries)])
    halved = torch.autocast("cpu", torch.bfloat16, enabled=module.config.precision != "32-true")
    with _undone(module), halved, torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        losses = module.losses(part, totals)  # which keep what they were computed from, until the end of the block
        weights = {parameter.untyped_storage().data_ptr() for parameter in module.network.parameters()}
        del losses
    return sum(size for pointer, size in kept.items() if pointer not in weights)


@contextlib.contextmanager
def _undone(module: TrainingModule) -> Iterator[None]:
    """Leave batch statistics and the streams of random numbers as they were."""
    before = {name: tensor.clone() for name, tensor in module.network.named_buffers()}
    with torch.random.fork_rng([]):
        yield
    with torch.no_grad():
        for name, tensor in module.network.named_buffers():
            tensor.copy_(before[name])


def parts_that_fit(config: TrainConfig, need: StepMemory, free: int, processes: int = 1) -> int:
    """In how many parts each process computes its share of a batch: as `--accumulate` says, or as few as fit.

    Raises ValueError where a step with as many parts takes more than there is.
    """
    share = max(1, config.batch_size // processes)
    if config.accumulate == "auto":
        divisors = [parts for parts in range(1, share + 1) if share % parts == 0]
        parts = next((n for n in divisors if need.of(share // n) <= FREE_SHARE * free), share)
    else:
        parts = config.accumulate
    if (wanted := need.of(max(1, share // parts))) > free:
        what = f"a step takes about {in_gb(wanted)} of memory, and {in_gb(free)} are free"
        raise ValueError(f"{what}: {LESS_PARTED if parts < share else LESS}")
    return parts


def choose_parts(module: TrainingModule, data: TrainingData, hardware: Hardware) -> str | None:
    """Give module and data the number of parts; a sentence for people where it was chosen and is more than one.

    Raises what `parts_that_fit` raises, and what reading a picture does.
    """
    config, (here, everywhere) = module.config, hardware.processes()
    device = torch.device("cuda" if hardware.on_cuda() else "cpu")
    free = free_memory(device) // (1 if device.type == "cuda" else here)
    need = step_memory(module, data)
    parts = parts_that_fit(config, need, free, everywhere)
    module.config = data.config = replace(config, accumulate=parts)
    if config.accumulate != "auto" or parts == 1:
        return None
    return (
        f"computes each batch in {parts} parts, with the gradients of the whole: {in_gb(free)} of memory are free, and "
        f"each of {config.batch_size // everywhere} pictures takes about {in_gb(need.a_picture)}"
    )


def advice_on_memory(error: BaseException) -> str | None:
    """What to do about an error that says that memory has run out; None for any other."""
    text = str(error)
    if "shared memory" in text or "/torch_" in text:
        return (
            "the shared memory in which loaded pictures are handed over is full: --workers 0 needs none, and a "
            "container gets more by --shm-size 1g"
        )
    if "DataLoader worker" in text and "killed by signal" in text:
        return f"a process that loads pictures was killed, as the system does where memory runs out: {LESS_PARTED}"
    said = any(words in text for words in ("out of memory", "not enough memory", "t allocate memory"))
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or said:
        return f"memory has run out: more parts (--accumulate) compute the same gradients in less of it; {LESS}"
    return None


def in_gb(count: int) -> str:
    """So many bytes, for people."""
    return f"{count / 1e9:.1f} GB"
