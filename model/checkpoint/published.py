"""The seven models that the authors of DETR published, and how to know their files."""

FILES: dict[str, str] = {
    "detr-resnet-50": "detr-r50-e632da11.pth",
    "detr-resnet-50-dc5": "detr-r50-dc5-f0fb7ef5.pth",
    "detr-resnet-101": "detr-r101-2c7b67e5.pth",
    "detr-resnet-101-dc5": "detr-r101-dc5-a2e86def.pth",
    "detr-resnet-50-panoptic": "detr-r50-panoptic-00ce5173.pth",
    "detr-resnet-50-dc5-panoptic": "detr-r50-dc5-panoptic-da08f1b1.pth",
    "detr-resnet-101-panoptic": "detr-r101-panoptic-40021d53.pth",
}
"""Preset name to file name."""


def digest_prefix(name: str) -> str:
    """The first eight hexadecimal digits of the SHA-256 of a published file, which end its name."""
    return FILES[name].removesuffix(".pth").rsplit("-", 1)[-1]


def preset_of_digest(sha256: str) -> str | None:
    """The preset of the published file with this SHA-256 (hexadecimal), or None if it is none of them."""
    return next((name for name in FILES if sha256.startswith(digest_prefix(name))), None)
