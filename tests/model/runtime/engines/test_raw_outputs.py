import numpy as np

from model.runtime.engines.raw_outputs import RawOutputs


def test_each_image_gets_its_own_masks() -> None:
    index = np.array([[0, 1], [0, 3], [2, 0]], dtype=np.int64)
    masks = np.arange(3, dtype=np.float32)[:, None, None] * np.ones((1, 8, 8), dtype=np.float32)
    outputs = RawOutputs(np.zeros((3, 4, 6), np.float32), np.zeros((3, 4, 4), np.float32), masks, index)
    found = [outputs.image(image) for image in range(3)]
    assert [part.query_index.tolist() for part in found if part.query_index is not None] == [[1, 3], [], [0]]
    assert [part.mask_logits[:, 0, 0].tolist() for part in found if part.mask_logits is not None] == [
        [0, 1],
        [],
        [2],
    ]
