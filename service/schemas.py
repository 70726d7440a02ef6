"""The shapes of everything the service answers in JSON, and of the parameters it takes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

PixelCoordinate = Annotated[float, Field(description="pixels of the image as displayed, origin at the top left")]
Score = Annotated[float, Field(ge=0, le=1)]
Threshold = Annotated[
    float | None,
    Field(
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="answers with a score above this; the model's own default if not given",
    ),
]


# Which words it takes, the model says.
ClassList = Annotated[str, Field(max_length=4000, json_schema_extra={"format": "class-list"})]


# Whether they are in the picture, only the picture says.
PointList = Annotated[str, Field(max_length=400, json_schema_extra={"format": "point-list"})]


class ExplainParameters(BaseModel):
    """Query of POST /explain."""

    model_config = ConfigDict(extra="forbid")

    threshold: Threshold = None
    classes: ClassList | None = Field(
        default=None,
        description="explain these classes only: names or category ids of the model's, such as person,dog or 1,18",
    )
    query: int | None = Field(
        default=None,
        ge=0,
        description="explain this object query only, whatever its score; an answer says `query` of each object",
    )
    points: PointList | None = Field(
        default=None,
        description="explain these points, too: x,y in pixels of the image as displayed, several with a semicolon "
        "between them, such as 120,80;300,45.5",
    )
    overlay: bool = Field(
        default=False,
        description="answer the picture with what was looked at painted over it, of the points if there are some and "
        "else of the objects: as PNG, or as the header Accept prefers it: image/png, image/jpeg or image/webp",
    )


class DetectParameters(BaseModel):
    """Query of POST /detect."""

    model_config = ConfigDict(extra="forbid")

    threshold: Threshold = None
    classes: ClassList | None = Field(
        default=None,
        description="answer these classes only: names or category ids of the model's, such as person,dog or 1,18",
    )

    format: Literal["json", "coco"] = Field(
        default="json",
        description="answer JSON of this service's own (json), or entries of COCO's results files (coco)",
    )
    image_id: int = Field(
        default=0, ge=0, le=2**53 - 1, description="what entries of COCO's results files call the image"
    )
    overlay: bool = Field(
        default=False,
        description="answer the picture with what was found drawn on it, whatever the format: as PNG, or as the header "
        "Accept prefers it: image/png, image/jpeg or image/webp",
    )


class SegmentParameters(DetectParameters):
    """Query of POST /segment."""

    mode: Literal["panoptic", "instance"] = Field(
        default="panoptic",
        description="one segment for each pixel (panoptic), or a mask for each object, which may overlap (instance); "
        "that is things only, unless classes are asked for",
    )
    polygons: bool = Field(default=False, description="answer the outlines of each segment beside its run lengths")


class Body(BaseModel):
    """Base of every body that is answered: frozen, and never a number that JSON has no word for."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Box(Body):
    """A box by its left, top, right and bottom edges."""

    x1: PixelCoordinate
    y1: PixelCoordinate
    x2: PixelCoordinate
    y2: PixelCoordinate


class ImageSize(Body):
    """Size of the uploaded image as displayed, after its EXIF orientation."""

    width: int
    height: int


class Detection(Body):
    """One object."""

    label: str
    category_id: int
    isthing: bool
    score: Score
    box: Box


class DetectResponse(Body):
    """Answer of POST /detect, best score first."""

    model: str
    image: ImageSize
    detections: list[Detection]


class RunLengths(Body):
    """A mask in COCO's compressed run-length encoding, as pycocotools reads it."""

    size: tuple[int, int] = Field(description="height, width")
    counts: str


class SegmentInfo(Body):
    """One segment."""

    id: int = Field(description="value of its pixels in the panoptic PNG; of an instance, its number")
    label: str
    category_id: int
    isthing: bool
    score: Score
    area: int = Field(description="pixels")
    box: Box
    rle: RunLengths
    polygons: list[list[list[tuple[int, int]]]] | None = Field(
        default=None,
        description="with polygons=true: each polygon's outer ring and then its holes, as in GeoJSON's MultiPolygon; "
        "corners are x, y of pixels' edges",
    )


class InstanceResponse(Body):
    """Answer of POST /segment?mode=instance, best score first."""

    model: str
    image: ImageSize
    segments: list[SegmentInfo]


class SegmentResponse(InstanceResponse):
    """Answer of POST /segment."""

    panoptic_png: str = Field(description="base64 of the COCO panoptic PNG: id = R + 256 G + 65536 B, 0 is void")


class CategoryInfo(Body):
    """One class the model knows."""

    id: int = Field(description="what detections and segments call category_id")
    name: str
    isthing: bool
    color: tuple[int, int, int] = Field(description="RGB")


class EdgesInfo(Body):
    """The shorter side becomes shortest_edge, unless the longer one would pass longest_edge."""

    rule: Literal["edges"]
    shortest_edge: int
    longest_edge: int
    rounding: Literal["published", "transformers"]


class FixedSizeInfo(Body):
    """Every image becomes one size."""

    rule: Literal["fixed"]
    height: int
    width: int


class BoundsInfo(Body):
    """As large as fits into a rectangle."""

    rule: Literal["bounds"]
    max_height: int
    max_width: int
    rounding: Literal["published", "transformers"]


class OwnSizeInfo(Body):
    """Every image keeps its size."""

    rule: Literal["none"]


class NormalizationInfo(Body):
    """What is subtracted from RGB values in [0, 1], and what the difference is divided by."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class AttentionShapeInfo(Body):
    """What the attention that a model's file gives is made of."""

    channels: int
    heads: int
    stride: int = Field(description="pixels of the image as the network sees it, per cell of a map")


class ModelResponse(Body):
    """Answer of GET /model: the artifact's metadata, and the device it runs on."""

    format_version: int
    name: str
    task: Literal["detection", "panoptic"]
    categories: list[CategoryInfo]
    num_queries: int
    resize: EdgesInfo | FixedSizeInfo | BoundsInfo | OwnSizeInfo = Field(
        description="how large the network sees an image, in pixels", discriminator="rule"
    )
    normalization: NormalizationInfo = Field(description="how the network sees a pixel")
    canvas_multiple: int
    mask_stride: int | None
    detect_threshold: Score
    segment_threshold: Score
    padding: Literal["exact", "published"]
    attention: AttentionShapeInfo | None = Field(description="null for a model that /explain cannot explain")
    provenance: dict[str, Any] = Field(description="where the model came from and what it measured")
    formats: list[str] = Field(description="the image formats that are opened, such as jpeg")
    device: str = Field(description="the kind of device that it runs on, such as cuda")
    devices: list[str] = Field(description="each device, as metrics and the log call it, such as cuda:0")
    precision: str = Field(description="what it is computed in there, such as float32 or bfloat16")
    digest: str = Field(description="the artifact's SHA-256, by which files are told apart")
    loaded_at: str = Field(description="when it was loaded, ISO 8601")


class HealthResponse(Body):
    """Answer of the health endpoints when all is well."""

    status: Literal["live", "ready"]


class ProtocolError(Body):
    """What every failure under /v2 is answered with: clients of the Open Inference Protocol print it as it is."""

    error: str


class ErrorBody(Body):
    """What went wrong: a code for programs, a sentence for people, and the id to look up in the log."""

    code: str
    message: str
    request_id: str


class ErrorResponse(Body):
    """The one shape of every answer that is not a success."""

    error: ErrorBody
