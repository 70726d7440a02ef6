"""What trainers keep beside the weights, read without running any of its code.

`torch.load(weights_only=True)` builds tensors and plain containers only. A training state usually holds a little more:
paths, dates, numbers of NumPy, settings. Nobody here needs their values, so none of those types is built: where a
pickle names one, an object of this module takes its place, that keeps nothing and calls nothing. Trusting the types
themselves would not do (a NumPy dtype takes its insides from the file as they are).
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import product
from types import SimpleNamespace
from typing import Any


class Left:
    """In the place of a value that is of no use here: takes any arguments and any state, and keeps neither."""

    def __new__(cls, *_: object) -> "Left":
        """An empty object."""
        return super().__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None:
        """Keep nothing."""


class Entries:
    """In the place of a dictionary of some kind: a plain one, to which the pickle then adds its entries.

    Its arguments are dropped, a default's factory among them.
    """

    def __new__(cls, *_: object) -> Any:
        """An empty dictionary, of the kind whose attributes torch lets a pickle set, as those of settings have some."""
        return OrderedDict()


class Items:
    """In the place of a list of some kind: a plain one."""

    def __new__(cls, *_: object) -> Any:
        """An empty list."""
        return []


class SettingsInFile(SimpleNamespace):
    """In the place of a namespace of settings, such as the arguments of the reference's training script.

    Only its attributes are set, in its dictionary; it has no code that could be reached by a name among them.
    """

    def __new__(cls, *_: object) -> "SettingsInFile":
        """An empty namespace."""
        return super().__new__(cls)


def settings_of(value: object) -> Mapping[str, Any]:
    """SettingsInFile by name, of a namespace or a dictionary; nothing of anything else."""
    if isinstance(value, SettingsInFile):
        return vars(value)
    return value if isinstance(value, Mapping) else {}


_NUMPY = (
    "dtype",
    "ndarray",
    *(f"random._pickle.__{of}_ctor" for of in ("bit_generator", "generator", "randomstate")),
    *("random._mt19937.MT19937", "random._pcg64.PCG64", "random._pcg64.PCG64DXSM", "random._philox.Philox"),
    *("random._sfc64.SFC64", "random.bit_generator.SeedSequence", "random.bit_generator.__pyx_unpickle_SeedSequence"),
)
_NUMPY_CORE = ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer")
_NUMPY_NUMBERS = (
    *("bool", "bool_", "float16", "float32", "float64", "complex64", "complex128", "str_", "longdouble"),
    *(f"{sign}int{bits}" for sign, bits in product(("", "u"), (8, 16, 32, 64))),
)
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_LIGHTNING = ("lightning.pytorch", "pytorch_lightning")
_CALLBACKS = (  # the keys of callbacks' states in files of before Lightning 1.5
    "callbacks.model_checkpoint.ModelCheckpoint",
    "callbacks.early_stopping.EarlyStopping",
    "callbacks.lr_monitor.LearningRateMonitor",
)

_LEFT = (
    *(f"numpy.{name}" for name in (*_NUMPY, *_NUMPY_NUMBERS)),
    *(f"numpy.{core}.{name}" for core, name in product(("core", "_core"), _NUMPY_CORE)),
    *(f"{module}.{name}" for module, name in product(("pathlib", "pathlib._local"), _PATHS)),
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    *("uuid.UUID", "decimal.Decimal", "fractions.Fraction", "time.struct_time", "torch.torch_version.TorchVersion"),
    *(f"builtins.{name}" for name in ("bool", "bytes", "float", "frozenset", "int", "object", "range", "slice", "str")),
    *(f"{lightning}.{name}" for lightning, name in product(_LIGHTNING, _CALLBACKS)),
)
_ENTRIES = (
    "builtins.dict",
    "collections.defaultdict",
    *(f"{lightning}.utilities.parsing.AttributeDict" for lightning in _LIGHTNING),
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "easydict.EasyDict",
    "addict.addict.Dict",
    "yacs.config.CfgNode",
)
_ITEMS = ("builtins.list", "builtins.tuple", "collections.deque")
_SETTINGS = ("argparse.Namespace", "types.SimpleNamespace")

STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (stand_in, name)
    for stand_in, names in ((Left, _LEFT), (Entries, _ENTRIES), (Items, _ITEMS), (SettingsInFile, _SETTINGS))
    for name in names
]
"""For `torch.serialization.safe_globals`: what takes the place of which name in a pickle."""
