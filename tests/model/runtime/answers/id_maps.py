"""Id maps to test with: a few ids, and rows and columns that repeat."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.runtime.answers.id_map import IdMap


@st.composite
def id_maps(draw: st.DrawFn, largest_id: int = 4) -> IdMap:
    """Up to 12 x 12 rows and columns, each up to five times."""
    height, width = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    dtype = draw(st.sampled_from([np.uint16, np.int32, np.int64])) if largest_id < 2**16 else np.int32
    ids = draw(arrays(dtype, (height, width), elements=st.integers(0, largest_id)))
    copies = (draw(arrays(np.intp, side, elements=st.integers(1, 5))) for side in (height, width))
    return IdMap(ids, *copies)


ID_MAPS = id_maps()
