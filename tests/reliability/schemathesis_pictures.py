"""What schemathesis sends where the description says that a picture is due (pictures, broken ones, and no picture), and
where it says that classes are (those of the demo model).
"""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import strategies as st

from tests.reliability.corpus import broken_pictures
from tests.reliability.scripted_engine import picture

PICTURES = {name: picture(0x804020, (80, 60), name) for name in ("PNG", "JPEG", "WEBP")}

for image_format in PICTURES:
    bodies = st.sampled_from([*PICTURES.values(), *broken_pictures().values()]) | st.binary(max_size=200)
    schemathesis.openapi.media_type(f"image/{image_format.lower()}", bodies)

schemathesis.openapi.format("class-list", st.sampled_from(["circle", "Heart,sky", "1,2"]))
schemathesis.openapi.format("point-list", st.sampled_from(["0,0", "1.5,2;0,1"]))


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: schemathesis.Case[Any]) -> bool:
    """Leave out drawings of several images, which are refused; the description cannot say so of a query and a body."""
    body = case.body if isinstance(case.body, dict) else {}
    several = "images" in body or isinstance(body.get("image"), list)
    return not (several and str((case.query or {}).get("overlay")).lower() == "true")
