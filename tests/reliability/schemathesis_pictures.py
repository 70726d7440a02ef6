"""What schemathesis sends where the description says that a picture is due (pictures, broken ones, and no picture), and
where it says that classes are (those of the tiny model).
"""

from __future__ import annotations

import schemathesis
from hypothesis import strategies as st

from tests.reliability.corpus import broken_pictures
from tests.reliability.scripted_engine import picture

PICTURES = {name: picture(0x804020, (80, 60), name) for name in ("PNG", "JPEG", "WEBP")}

for image_format in PICTURES:
    bodies = st.sampled_from([*PICTURES.values(), *broken_pictures().values()]) | st.binary(max_size=200)
    schemathesis.openapi.media_type(f"image/{image_format.lower()}", bodies)

schemathesis.openapi.format("class-list", st.sampled_from(["red", "Ground,sky", "1,95"]))
