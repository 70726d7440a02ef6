"""Finds the weights of a DETR in what a trainer saved: within dictionaries, behind prefixes, more than once.

Neither wrappers nor prefixes are known by their names: the keys of a detector are looked for wherever they are, and
what stands before them on all of its keys is a prefix, be it `model._orig_mod.` or `{"ema": {"module": ...}}`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.checkpoint.errors import CheckpointError, printable

DEPTH = 5  # dictionaries in dictionaries that are looked into

# What a detector's keys begin with, under the published names or under those of transformers, behind any prefix.
_DETECTOR = re.compile(r"(|.+?\.)(?:transformer\.(?:encoder|decoder)\.|model\.(?:encoder|decoder)\.layers\.)")
# Modules that torch.compile, FSDP and activation checkpointing put in between, anywhere in a key.
_IN_BETWEEN = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# What trainers keep in a state dict and the network has no use for: the loss, and an average's count of steps.
_OF_LOSS = frozenset({"criterion", "empty_weight"})
_OF_AVERAGE = "n_averaged"
_AVERAGED = re.compile(r"ema|swa|averag|shadow", re.IGNORECASE)


@dataclass(frozen=True)
class Candidate:
    """One network's weights in a checkpoint.

    `name` is the way to them, in dictionaries and then in keys: `ema.module`, empty where they are the whole file.
    `state` has the keys without their prefix; a key of the same dictionary that is not behind it keeps its name, so
    that the strict check names it. `notes` say what was left out.
    """

    name: str
    state: dict[str, Any]
    notes: tuple[str, ...]


def choose(content: Mapping[Any, Any], wanted: str | None = None) -> tuple[Candidate, tuple[str, ...]]:
    """The network to take from a checkpoint's content, and notes on the choice.

    Of several, that which `wanted` names is taken, by its whole name or a part of it between dots. Without `wanted` it
    is the moving average, which trainers measure and recommend, else the first. CheckpointError where there is no DETR,
    or not one that `wanted` names.
    """
    found = list(candidates(content))
    if not found:
        raise CheckpointError(_no_detr(content))
    if wanted is None:
        # An average of the parameters alone, without the statistics of batch norm, is no whole network.
        most = max(len(candidate.state) for candidate in found)
        whole = (candidate for candidate in found if len(candidate.state) == most)
        chosen = next((candidate for candidate in whole if _AVERAGED.search(candidate.name)), found[0])
    else:
        matching = [candidate for candidate in found if wanted == candidate.name]
        matching = matching or [candidate for candidate in found if wanted in candidate.name.split(".")]
        if len(matching) != 1:
            which = "several of" if matching else "none of"
            raise CheckpointError(f"--weights {wanted} names {which} the weights in it, which are {_listed(found)}")
        (chosen,) = matching
    if len(found) == 1:
        return chosen, chosen.notes
    others = _listed([candidate for candidate in found if candidate is not chosen])
    return chosen, (f"weights: {_shown(chosen)}; there are also {others} (--weights takes those)", *chosen.notes)


def candidates(content: Mapping[Any, Any]) -> Iterator[Candidate]:
    """Every network in a checkpoint's content, in the order in which they are met."""
    for way, state in _state_dicts(content, (), set()):
        keys = {key: _without_wrapping(str(key)) for key in state}
        prefixes = _prefixes(list(keys.values()))
        for prefix in prefixes:
            others = tuple(other for other in prefixes if other != prefix and other.startswith(prefix))
            yield _candidate(way, state, keys, prefix, tuple(set(prefixes) - {prefix}), others)


def _candidate(
    way: Sequence[str],
    state: Mapping[Any, Any],
    keys: Mapping[Any, str],
    prefix: str,
    elsewhere: tuple[str, ...],
    within: tuple[str, ...],
) -> Candidate:
    """The network whose keys begin with `prefix`; others are behind the prefixes `elsewhere` and `within` it."""
    found: dict[str, Any] = {}
    left: list[str] = []
    for original, key in keys.items():
        inside = key.startswith(prefix) and not key.startswith(within or ("\x00",))
        if not inside and key.startswith(elsewhere):
            continue
        parts = key.split(".")
        if parts[-1] == _OF_AVERAGE:
            continue
        if not _OF_LOSS.isdisjoint(parts):
            left.append(printable(key))
            continue
        name = key.removeprefix(prefix) if inside else key
        if name in found:
            raise CheckpointError(f"two of its keys mean {name}")
        found[name] = state[original]
    notes = (f"left out, as it is of the loss: {', '.join(left)}",) if left else ()
    return Candidate(".".join([*way, *prefix.split(".")[:-1]]), found, notes)


def _state_dicts(
    content: Mapping[Any, Any], way: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """Each dictionary with arrays under a detector's keys, and the way to it; a pickle can hold one inside itself."""
    if id(content) in seen or len(way) > DEPTH:
        return
    seen.add(id(content))
    if any(hasattr(value, "shape") and _DETECTOR.match(str(key)) for key, value in content.items()):
        yield way, content
        return
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _state_dicts(value, (*way, str(key)), seen)


def _without_wrapping(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in _IN_BETWEEN)


def _prefixes(keys: Sequence[str]) -> list[str]:
    """What stands before each network's keys. `detr.` is no prefix beside a mask head: it is a name of that network."""
    found = dict.fromkeys(match[1] for key in keys if (match := _DETECTOR.match(key)))
    heads = {key[: match.start()] for key in keys if (match := re.search(r"(?:mask_head|bbox_attention)\.", key))}
    whole = (outer if (outer := prefix.removesuffix("detr.")) in heads else prefix for prefix in found)
    return list(dict.fromkeys(whole))


def _no_detr(content: Mapping[Any, Any]) -> str:
    """What to say of a content without a DETR: of its largest dictionary of arrays, or of what it is instead."""
    named = content.get("model", content)
    if not isinstance(named, Mapping):
        return f"its entry 'model' is a {type(named).__name__}, not a state dict"
    keys = max(_arrays(content, set(), 0), key=len, default=())
    if not keys and named:
        return f"its entry {printable(next(iter(named)))!r} is no tensor, nor does it hold any"
    return f"its keys are not those of a DETR (the first are: {', '.join(map(printable, keys[:3])) or 'none'})"


def _arrays(content: Mapping[Any, Any], seen: set[int], depth: int) -> Iterator[tuple[str, ...]]:
    if id(content) in seen or depth > DEPTH:
        return
    seen.add(id(content))
    yield tuple(str(key) for key, value in content.items() if hasattr(value, "shape"))
    for value in content.values():
        if isinstance(value, Mapping):
            yield from _arrays(value, seen, depth + 1)


def _listed(found: Sequence[Candidate]) -> str:
    return ", ".join(map(_shown, found))


def _shown(candidate: Candidate) -> str:
    return printable(candidate.name) or "those without a prefix"
