"""Where the network looked, as the client has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detr_client import BadRequestError, Client, LocalModel
from detr_client.drawing import heat_of


def test_objects_and_points_have_maps(client: Client, local: LocalModel, example: Path) -> None:
    answer = client.explain(example, points=[(320, 240), (10.5, 20)])
    assert local.explain(example, points=np.array([(320, 240), (10.5, 20)])) == answer
    body, detected = answer.to_json(), client.detect(example)
    assert (answer.labels, answer.scores.tolist()) == (detected.labels, detected.scores.tolist())
    rows, columns = np.array(body["objects"][0]["attention"]).shape
    assert answer.attention.shape == (len(answer), rows, columns)
    assert answer.attention.tolist() == [found["attention"] for found in body["objects"]]
    assert answer.point_attention.shape == (2, rows, columns)
    assert answer.points.tolist() == [[320, 240], [10.5, 20]]
    assert answer.cell == (body["cell"]["width"], body["cell"]["height"])
    np.testing.assert_allclose(answer.attention.sum(axis=(1, 2)), 1, atol=1e-3)
    for array in (answer.attention, answer.points, answer.point_attention, answer.queries):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_one_query_and_several_pictures(client: Client, example: Path) -> None:
    (first, second) = client.explain([example, example], query=3)
    assert first == second
    assert first.queries.tolist() == [3]
    assert client.explain(example, threshold=1).attention.shape == (0, 0, 0)


@pytest.mark.parametrize("wrong", [{"query": 10**6}, {"points": [(0, 0)] * 21}, {"points": [(10**5, 1)]}])
def test_what_cannot_be_explained_is_refused(
    wrong: dict[str, int], client: Client, local: LocalModel, example: Path
) -> None:
    messages = set()
    for detector in (client, local):
        with pytest.raises(BadRequestError) as refused:
            detector.explain(example, **wrong)  # type: ignore[call-overload]
        messages.add(str(refused.value).partition(" (request")[0])
    assert len(messages) == 1


def test_heat_is_where_the_network_looked(client: Client, example: Path) -> None:
    answer = client.explain(example)
    heat = answer.heat(answer.attention[0])
    assert heat.dtype == np.float32
    assert heat.shape == (answer.height, answer.width)
    row, column = np.unravel_index(answer.attention[0].argmax(), answer.attention[0].shape)
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    assert (int(y / answer.cell[1]), int(x / answer.cell[0])) == (row, column)
    drawn = answer.draw(example)
    assert drawn.size == (answer.width, answer.height)
    assert np.array(drawn).tolist() != np.array(client.detect(example).draw(example)).tolist()


def test_the_last_cells_reach_over_the_edge() -> None:
    attention = np.array([[0.0, 0.0, 1.0]])
    heat = heat_of(attention, cell=(10, 10), size=(21, 10))  # of the third cell one column is seen
    assert heat.shape == (10, 21)
    assert heat[:, :10].max() < 0.1
    assert heat[:, -1].min() == heat.max()
