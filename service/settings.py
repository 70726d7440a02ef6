"""Everything that can be set, read in this one place.

Each field is also an environment variable (`DETR_` and the name in capitals) and a flag of `detr serve` (the
name with dashes). Flags win over the environment. Units are in the names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from model.runtime.engines.cores import available_cores

ENV_PREFIX = "DETR_"
DEMO_MODEL = Path(__file__).resolve().parent.parent / "model" / "demo" / "detr-demo.onnx"
# Above this Pillow warns of a decompression bomb, and the service never turns that protection off.
PILLOW_MAX_PIXELS = 89_478_485

# These have no flag: what stands on a command line is shown to every user of the machine.
SECRETS = frozenset({"api_keys"})

Device = Literal["auto", "cpu", "cuda", "tensorrt", "openvino"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
LogLevel = Literal["debug", "info", "warning", "error"]


class SettingsError(Exception):
    """A setting has a value that cannot be used; the message is one line that names the setting."""


Milliseconds = Annotated[float, Field(gt=0, le=3_600_000)]
Seconds = Annotated[int, Field(ge=1, le=3_600)]
Count = Annotated[int, Field(ge=1, le=100_000)]
Connections = Annotated[int, Field(ge=4, le=100_000)]
Threads = Annotated[int, Field(ge=1, le=1_024)]
Bytes = Annotated[int, Field(ge=1_024, le=2**40)]
Pixels = Annotated[int, Field(ge=1, le=PILLOW_MAX_PIXELS)]
Canvas = Annotated[int, Field(ge=32, le=8_192, multiple_of=32)]
Origin = Annotated[str, Field(pattern=r"^(\*|https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?)$")]


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


# NoDecode: what the environment gives is split at its commas, and is not JSON.
Origins = Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """What the service is told from outside; frozen once read."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    model: Path | None = Field(default=None, description="artifact to serve; the demo model if not given")
    device: Device = Field(
        default="auto",
        description="where the model runs; auto is CUDA if it loads, else OpenVINO if it is installed, else the CPU",
    )
    precision: Precision = Field(
        default="auto",
        description=(
            "what it is computed in; auto is what the file was exported as, except that OpenVINO computes a float32 "
            "file's convolutions in bfloat16 where the processor has instructions for it: nearly twice as fast, but "
            "scores move by up to 0.05; float32 is exact; float16 takes a file that was exported so"
        ),
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65_535, description="port to listen on; 0 takes a free one")
    metrics_host: str = Field(default="127.0.0.1", min_length=1, description="address of the port for metrics")
    metrics_port: int = Field(
        default=0,
        ge=0,
        le=65_535,
        description="for /metrics alone, which needs no key there; 0 keeps it on the main port",
    )
    docs: bool = Field(default=True, description="serve the web page, /docs and /openapi.json")
    log_level: LogLevel = Field(default="info", description="least severe log line that is written")

    max_batch_size: Count = Field(default=8, description="images in one batch")
    max_batch_pixels: Pixels = Field(default=12_000_000, description="of a batch, padding included; bounds memory")
    max_queue_delay_ms: float = Field(
        default=0,
        ge=0,
        le=10_000,
        description="for company, if it would pay, while the engine is idle; 0 is not at all",
    )
    batch_timing_ms: float = Field(
        default=3_000, ge=0, le=600_000, description="at the start, for timing batches; 0 fills all in order of arrival"
    )
    max_queue_size: Count = Field(default=64, description="requests taken beyond one full batch; others get 503")
    retry_after_s: Seconds = Field(default=1, description="what Retry-After says on a 503")

    api_keys: SecretStr | None = Field(default=None, description="keys that let clients in, separated by commas")
    api_keys_file: Path | None = Field(
        default=None, description="file with one such key a line, read again when it changes"
    )
    admin_keys_file: Path | None = Field(
        default=None, description="file with keys for POST /model/reload; without it the route is closed"
    )
    cors_origins: Origins = Field(
        default=(), description="origins whose pages may use the service, separated by commas; * is any"
    )

    max_connections: Connections = Field(
        default=512, description="open at once; beyond, those that wait for a request are closed to make room"
    )
    header_timeout_ms: Milliseconds = Field(default=5_000, description="for headers to arrive; then closed")
    body_timeout_ms: Milliseconds = Field(default=15_000, description="for an upload to arrive; then 408")
    write_timeout_ms: Milliseconds = Field(default=30_000, description="for an answer to be read; then cut off")
    request_timeout_ms: Milliseconds = Field(default=10_000, description="from upload to answer; then 504")
    engine_stall_ms: Milliseconds = Field(
        default=60_000, description="one batch; after that no longer ready, and requests get 503 at once"
    )
    engine_hang_exit_ms: float = Field(
        default=300_000, ge=0, le=86_400_000, description="one batch; after that exit with code 4; 0 is never"
    )
    drain_timeout_ms: Milliseconds = Field(default=30_000, description="for accepted requests at shutdown")
    keep_alive_timeout_s: Seconds = Field(default=5, description="how long an idle connection stays open")

    max_header_bytes: Bytes = Field(default=32 * 2**10, description="a request's headers; more gets 431")
    max_body_bytes: Bytes = Field(default=16 * 2**20, description="an upload; more gets 413")
    max_buffered_bytes: Bytes = Field(default=256 * 2**20, description="uploads and answers in memory; more gets 503")
    max_pixels: Pixels = Field(default=50_000_000, description="width x height of an image; more gets 413")
    max_side: Pixels = Field(default=16_384, description="longer side of an image, in pixels; more gets 413")

    reduced_decode: bool = Field(
        default=False, description="decode large JPEGs at a fraction of their size; faster, and answers differ slightly"
    )

    canvas_multiple: Canvas | None = Field(
        default=None, description="pixels that the sides of a batch divide by; by default 32 on a CPU, 128 on a GPU"
    )
    gpu_memory_bytes: Bytes | None = Field(
        default=None, description="the most that the model takes on a GPU; all there is by default"
    )
    tensorrt_cache: Path | None = Field(
        default=None, description="folder that keeps what TensorRT builds, which takes minutes at each start without"
    )
    warm_up_ms: float = Field(
        default=60_000, ge=0, le=3_600_000, description="at the start, for running every canvas once on a GPU"
    )

    cpu_threads: Threads = Field(default_factory=available_cores, description="that decode and encode images")
    engine_threads: Threads | None = Field(default=None, description="of the model on a CPU; all cores by default")

    @model_validator(mode="after")
    def _one_upload_fits(self) -> Self:
        if self.max_buffered_bytes < self.max_body_bytes:
            raise ValueError("max_buffered_bytes has to hold one upload of max_body_bytes")
        return self

    @property
    def max_requests(self) -> int:
        """Requests under way at once; the connections beyond are kept for health, so that it is never refused."""
        return self.max_connections - max(1, self.max_connections // 32)

    def artifact_path(self) -> Path:
        """The artifact to serve.

        Raises:
            SettingsError: no model was given and the demo model is not installed.
        """
        if self.model is not None:
            return self.model
        if not DEMO_MODEL.is_file():
            raise SettingsError("no model was given (--model or DETR_MODEL), and the demo model is not installed")
        return DEMO_MODEL


def read_settings(given: dict[str, str]) -> Settings:
    """Settings from the environment, with `given` (field name to text) over it.

    Raises:
        SettingsError: a value cannot be used.
    """
    try:
        return Settings(**given)  # type: ignore[arg-type]  # text, which pydantic turns into each field's type
    except ValidationError as error:
        raise SettingsError(_first_problem(error)) from error


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    name = str(problem["loc"][0]) if problem["loc"] else ""
    reason = problem["msg"].removeprefix("Value error, ")
    return f"{name_of(name)}: {reason}" if name else reason


def name_of(field: str) -> str:
    """What a setting is called outside: its environment variable, and its flag where it has one."""
    variable = f"{ENV_PREFIX}{field.upper()}"
    return variable if field in SECRETS else f"{variable} (--{field.replace('_', '-')})"
