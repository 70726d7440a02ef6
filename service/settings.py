"""Everything that can be set, read in this one place.

Each field is also an environment variable (`DETR_` and the name in capitals) and a flag of `detr serve` (the
name with dashes). Flags win over the environment. Units are in the names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, get_args, get_origin, get_type_hints

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.runtime.engines.cores import available_cores
from model.runtime.nearest import did_you_mean
from service.setting_types import (
    Address,
    Bytes,
    CanvasMultiple,
    ConnectionCount,
    Count,
    Device,
    Devices,
    File,
    Folder,
    Formats,
    LogFormat,
    LogLevel,
    Metavar,
    Milliseconds,
    ModelName,
    Origins,
    PixelCount,
    PortNumber,
    Precision,
    Revision,
    Seconds,
    Site,
    Sites,
    Switch,
    Threads,
)

ENV_PREFIX = "DETR_"
DEMO_MODEL = Path(__file__).resolve().parent.parent / "model" / "demo" / "detr-demo.onnx"

# These have no flag: what stands on a command line is shown to every user of the machine.
SECRETS = frozenset({"api_keys", "label_studio_api_key"})


class SettingsError(Exception):
    """A setting has a value that cannot be used; the message is one line that names the setting."""


class Settings(BaseSettings):
    """What the service is told from outside; frozen once read.

    The text under a field is its description, and what `--help` says of it, with its default behind it.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: ModelName = None
    """Run the model of this artifact, of this Hugging Face folder, or of this name on the Hugging Face hub, OWNER/NAME
    or OWNER/NAME@REVISION, which is downloaded. What is there on this machine comes before a name. The default is the
    bundled demo model.
    """
    revision: Revision = None
    """Take this branch, tag or commit of a model on the hub. The default is main."""
    model_cache: Folder | None = None
    """Keep what was made of models on the hub, and of folders here, in this folder. The default is detr-serve in
    XDG_CACHE_HOME or ~/.cache. Downloads are in the hub's own cache, with its own variables: HF_HOME, HF_TOKEN,
    HF_ENDPOINT, HF_HUB_OFFLINE.
    """
    device: Device = "auto"
    """Run the model on this device; auto is CUDA if it loads, else OpenVINO if it is installed, else the CPU."""
    devices: Devices = ()
    """Run the model on all of these devices at once, each of which takes a batch whenever it is free: cuda:0,cuda:1, or
    cuda:all for every GPU, or cpu*2 for two engines that share the cores. All have to be there at the start, and are of
    one kind. The default is the one of --device.
    """
    precision: Precision = "auto"
    """Compute the model in this precision; auto is the one that the file was exported in, except that OpenVINO computes
    the convolutions of a float32 file in bfloat16 where the processor has instructions for it, which is nearly twice as
    fast and moves scores by up to 0.05; float32 is exact; float16 takes a file that was exported in it.
    """
    host: Address = "127.0.0.1"
    """Listen on this address."""
    port: PortNumber = 8000
    """Listen on this port; 0 takes a free one."""
    metrics_host: Address = "127.0.0.1"
    """Listen on this address for metrics, if they have a port of their own."""
    metrics_port: PortNumber = 0
    """Serve /metrics on this port, where it needs no key, and not on the main one; 0 leaves it there."""
    docs: Switch = True
    """Serve the web page, /docs and /openapi.json."""
    log_level: LogLevel = "info"
    """Write log lines of this severity and above, and of libraries no less than warnings."""
    log_format: LogFormat = "auto"
    """Write log lines as text for people, or as JSON; auto is text on a terminal and JSON everywhere else."""

    max_batch_size: Count = 8
    """Run at most this many images in one batch."""
    max_batch_pixels: PixelCount = 12_000_000
    """Run at most this many pixels in one batch, padding included, which bounds its memory; an image that alone has
    more runs alone.
    """
    max_queue_delay_ms: Annotated[float, Field(ge=0, le=10_000), Metavar("MS")] = 0
    """Let a batch wait this many milliseconds for more images while the engine is free, if they would make it cheaper;
    with 0 it never waits.
    """
    batch_timing_ms: Annotated[float, Field(ge=0, le=600_000), Metavar("MS")] = 3_000
    """Spend about this many milliseconds at the start on timing batches, which tells what is worth batching; with 0
    nothing is timed, and every batch is filled in order of arrival.
    """
    max_queue_size: Count = 64
    """Accept this many requests beyond one full batch, and answer 503 to any more."""
    retry_after_s: Seconds = 1
    """Ask clients that get a 503 to come back after this many seconds (Retry-After)."""

    api_keys: SecretStr | None = None
    """Let only clients with one of these keys in; they are separated by commas."""
    api_keys_file: File | None = None
    """Let only clients with a key of this file in; it has one key a line and is read again when it changes."""
    admin_keys_file: File | None = None
    """Let clients with a key of this file use POST /model/reload, which is closed without it."""
    cors_origins: Origins = ()
    """Let pages of these origins use the service; commas separate them, and * is any origin. The default is none."""

    label_studio_url: Site = None
    """Label the pictures of the Label Studio at this address, as an ML backend of it, under /label-studio; pictures are
    fetched from there. Without it there is no such path.
    """
    label_studio_origins: Sites = ()
    """Fetch pictures of Label Studio's tasks from these origins, too, separated by commas. The default is none."""
    label_studio_api_key: SecretStr | None = None
    """Fetch pictures from Label Studio with this access token of one of its users."""
    label_studio_timeout_ms: Milliseconds = 90_000
    """Answer Label Studio after this many milliseconds with what is done, and leave the other tasks for the next time;
    it waits 100 seconds (its ML_TIMEOUT_PREDICT).
    """

    max_connections: ConnectionCount = 512
    """Keep at most this many connections open; for one more, the connection that has waited longest for its client is
    closed.
    """
    header_timeout_ms: Milliseconds = 5_000
    """Close a connection on which a request's headers take more milliseconds than this."""
    body_timeout_ms: Milliseconds = 15_000
    """Answer 408 to an upload that takes more milliseconds than this."""
    write_timeout_ms: Milliseconds = 30_000
    """Cut off a client that takes more milliseconds than this to read its answer."""
    request_timeout_ms: Milliseconds = 10_000
    """Answer 504 to a request that takes more milliseconds than this after its upload."""
    engine_stall_ms: Milliseconds = 60_000
    """Answer 503 to images and /health/ready while a batch has been in the engine for more milliseconds than this."""
    engine_hang_exit_ms: Annotated[float, Field(ge=0, le=86_400_000), Metavar("MS")] = 300_000
    """End the process with exit code 4 once one batch has been in the engine, or one image in a decoder, for this many
    milliseconds; with 0 it never ends for that.
    """
    drain_delay_ms: Annotated[float, Field(ge=0, le=3_600_000), Metavar("MS")] = 0
    """Take work for this many milliseconds after the signal to end, while /health/ready answers 503 already, so that a
    balancer which asks it now and then has learnt of the end before work is refused; with 0 it is refused at once.
    """
    drain_timeout_ms: Milliseconds = 30_000
    """Wait at most this many milliseconds at shutdown, after drain_delay_ms, for the requests that were accepted."""
    keep_alive_timeout_s: Seconds = 5
    """Close a connection on which no request has come for this many seconds."""

    max_images_per_request: Annotated[int, Field(ge=1, le=1_000), Metavar("COUNT")] = 16
    """Answer 413 to a request of more images than this. They share max_body_bytes; each has a place in the queue."""
    max_header_bytes: Bytes = 32 * 2**10
    """Answer 431 to a request whose headers have more bytes than this."""
    max_body_bytes: Bytes = 16 * 2**20
    """Answer 413 to an upload of more bytes than this."""
    max_buffered_bytes: Bytes = 256 * 2**20
    """Answer 503 where all uploads and answers in memory would have more bytes than this."""
    max_pixels: PixelCount = 50_000_000
    """Refuse an image of more pixels than this, width x height, with a 413. Where the model sees images at their own
    size, max_batch_pixels counts as well.
    """
    max_side: PixelCount = 16_384
    """Refuse an image whose longer side has more pixels than this, with a 413."""
    max_image_parts: Count = 20_000
    """Refuse an image of more segments (JPEG) or chunks (PNG, WebP) than this, or more than 250 tables, with a 413."""
    max_image_scans: Count = 120
    """Refuse a JPEG of more scans than this, each of which is work for all of its pixels, with a 413."""
    decode_cpu_ms: Milliseconds = 7_500
    """Refuse an image of max_pixels that takes longer than this to decode, in milliseconds of CPU time, with a 413.
    Smaller images have a quarter of it and, by their pixels, a share of the rest.
    """

    formats: Formats = ()
    """Decode images of these formats, too, separated by commas: avif, bmp, gif (its first frame), tiff (its first page)
    and heic (with the extra heic). JPEG, PNG and WebP always are. The default is no other.
    """
    reduced_decode: Switch = False
    """Decode large JPEGs at a half, a quarter or an eighth of their size: faster, but answers change slightly."""

    canvas_multiple: CanvasMultiple | None = None
    """Make the sides of every batch multiples of this many pixels. The default is what the model needs, and on a GPU
    128 if its padding is exact.
    """
    gpu_memory_bytes: Bytes | None = None
    """Let the model take at most this many bytes of a GPU's memory. The default is all there are."""
    tensorrt_cache: Folder | None = None
    """Keep what TensorRT builds in this folder; without one it is built at each start, for minutes."""
    warm_up_ms: Annotated[float, Field(ge=0, le=3_600_000), Metavar("MS")] = 60_000
    """Spend about this many milliseconds at the start on running every size of canvas once on a GPU, which is slow the
    first time; with 0 none is run.
    """

    cpu_threads: Threads = Field(default_factory=available_cores)
    """Decode images and make answers in this many threads, one not for large ones. The default is one for each core."""
    engine_threads: Threads | None = None
    """Run the model on a CPU in this many threads. The default is one for each core."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.max_buffered_bytes < self.max_body_bytes:
            raise ValueError("max_buffered_bytes has to hold one upload of max_body_bytes")
        alone = [name for name in ("label_studio_origins", "label_studio_api_key") if getattr(self, name)]
        if alone and self.label_studio_url is None:
            raise ValueError(f"{name_of(alone[0])} needs {name_of('label_studio_url')}")
        if self.devices and self.device != "auto":
            raise ValueError(f"give {name_of('device')} or {name_of('devices')}, not both")
        return self

    def capacity(self, engines: int) -> int:
        """Images that are accepted at once: a batch for each engine, and the queue behind them."""
        return engines * self.max_batch_size + self.max_queue_size

    @property
    def device_words(self) -> tuple[str, ...]:
        """The devices to run on, in the words of `model/runtime/engines/devices.py`."""
        return self.devices or (self.device,)

    @property
    def hang_seconds(self) -> float | None:
        """How long a thread may be at one batch or image before only a new process helps; None is for ever."""
        return self.engine_hang_exit_ms / 1000 or None

    @property
    def max_requests(self) -> int:
        """Requests under way at once; the connections beyond are kept for health, so that it is never refused."""
        return self.max_connections - max(1, self.max_connections // 32)

    def named_model(self) -> str:
        """What the model to serve is called: a path, or a name on the hub.

        Raises:
            SettingsError: no model was given and the demo model is not installed.
        """
        if self.model is not None:
            return self.model
        if not DEMO_MODEL.is_file():
            raise SettingsError("no model was given (--model or DETR_MODEL), and the demo model is not installed")
        return str(DEMO_MODEL)


def read_settings(given: dict[str, str]) -> Settings:
    """Settings from the environment, with `given` (field name to text) over it; device is over devices, and vice versa.

    Raises:
        SettingsError: a value cannot be used.
    """
    over = {"devices": ""} if "device" in given else {"device": "auto"} if "devices" in given else {}
    try:
        return Settings(**(over | given))  # type: ignore[arg-type]  # text, which pydantic turns into each field's type
    except ValidationError as error:
        raise SettingsError(_first_problem(error)) from error


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    name = str(problem["loc"][0]) if problem["loc"] else ""
    reason = problem["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    if problem["type"] == "literal_error":
        hint = get_type_hints(Settings)[name]
        choices = get_args(hint if get_origin(hint) is Literal else get_args(hint)[0])  # of one, or of each of several
        reason = f"there is no {problem['input']!r}; use {', '.join(choices)}{did_you_mean(problem['input'], choices)}"
    return f"{name_of(name)}: {reason}" if name else reason


def name_of(field: str) -> str:
    """What a setting is called outside: its environment variable, and its flag where it has one."""
    variable = variable_of(field)
    return variable if field in SECRETS else f"{variable} ({flag_of(field)})"


def variable_of(field: str) -> str:
    """The environment variable of a setting."""
    return f"{ENV_PREFIX}{field.upper()}"


def flag_of(field: str) -> str:
    """The option of a setting."""
    return f"--{field.replace('_', '-')}"
