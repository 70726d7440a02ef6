"""The transformer against torch's own layers, and who may influence whom in it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model.network.transformer import (
    MultiheadAttention,
    Transformer,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
    plain_attention,
)

DIM, HEADS, WIDE = 16, 4, 24
BATCH, QUERIES, CELLS = 2, 5, 7

either_norm = pytest.mark.parametrize("pre_norm", [False, True])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shake(module: nn.Module) -> None:
    """Give every parameter, the gains and biases of norms included, a value that matters."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator) + (parameter.ndim == 1))


def some_padding() -> Tensor:
    padding_mask = torch.zeros(BATCH, CELLS, dtype=torch.bool)
    padding_mask[1, 4:] = True
    return padding_mask


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding_mask", [None, some_padding()], ids=["no padding", "padding"])
def test_attention_is_that_of_torch_with_the_same_weights(padding_mask: Tensor | None) -> None:
    expected = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    shake(expected)
    ours = MultiheadAttention(DIM, HEADS, dropout=0.0)
    ours.load_state_dict(expected.state_dict())
    query, key, value = (
        random(BATCH, QUERIES, DIM),
        random(BATCH, CELLS, DIM, seed=2),
        random(BATCH, CELLS, DIM, seed=3),
    )
    close(ours(query, key, value, padding_mask), expected(query, key, value, key_padding_mask=padding_mask)[0])


@pytest.mark.parametrize("padding_mask", [None, some_padding()], ids=["no padding", "padding"])
def test_an_exported_graph_attends_as_the_module_does_but_without_a_guard_for_empty_rows(
    padding_mask: Tensor | None,
) -> None:
    attention = MultiheadAttention(DIM, HEADS, dropout=0.5).eval()
    shake(attention)
    inputs = (random(BATCH, QUERIES, DIM), random(BATCH, CELLS, DIM, seed=2), random(BATCH, CELLS, DIM, seed=3))
    arguments = inputs if padding_mask is None else (*inputs, padding_mask)
    program = torch.export.export(attention, arguments)
    close(program.module()(*arguments), attention(*arguments))
    # The exporter would guard this call, in every row of every image, against having nothing to attend to.
    assert not [node for node in program.graph.nodes if "scaled_dot_product" in str(node.target)]


@settings(max_examples=20)
@given(st.lists(st.booleans(), min_size=CELLS, max_size=CELLS).filter(lambda valid: any(valid)), st.integers(0, 99))
def test_padding_has_no_share_in_plain_attention_however_alike_it_is(valid: list[bool], seed: int) -> None:
    q, k, v = (random(1, HEADS, CELLS, 4, seed=seed + i) for i in range(3))
    padding_mask = ~torch.tensor([valid])
    padded = plain_attention(q, torch.where(padding_mask[0, :, None], 1e9 * q.sign(), k), v, padding_mask)
    close(padded, plain_attention(q, k[:, :, valid], v[:, :, valid], None))


@pytest.mark.parametrize("cells", [40, 1100], ids=["few scores", "many scores"])
def test_bfloat16_on_a_cpu_attends_as_float32_does_within_its_digits(cells: int) -> None:
    attention = MultiheadAttention(DIM, HEADS, dropout=0.5).eval()
    shake(attention)
    query, key, value = (random(BATCH, cells, DIM, seed=seed) for seed in (4, 5, 6))
    padding_mask = torch.zeros(BATCH, cells, dtype=torch.bool)
    padding_mask[1, 4:] = True
    expected = attention(query, key, value, padding_mask)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(query, key, value, padding_mask)
    torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=8e-2)


def test_dropout_zeroes_its_share_of_the_weights_and_scales_the_others_up() -> None:
    torch.manual_seed(0)
    q, k = random(BATCH, HEADS, 200, 4), random(BATCH, HEADS, 200, 4, seed=2)
    weights = plain_attention(q, k, torch.eye(200).expand(BATCH, HEADS, 200, 200), None)
    dropped = plain_attention(q, k, torch.eye(200).expand(BATCH, HEADS, 200, 200), None, dropout=0.25)
    kept = dropped > 0
    close(dropped[kept], weights[kept] / 0.75)
    assert 0.74 < float(kept.float().mean()) < 0.76


@either_norm
@pytest.mark.parametrize("padding_mask", [None, some_padding()], ids=["no padding", "padding"])
def test_an_encoder_layer_without_positions_is_that_of_torch(pre_norm: bool, padding_mask: Tensor | None) -> None:
    expected = nn.TransformerEncoderLayer(DIM, HEADS, WIDE, dropout=0.0, batch_first=True, norm_first=pre_norm)
    shake(expected)
    ours = TransformerEncoderLayer(DIM, HEADS, WIDE, dropout=0.0, pre_norm=pre_norm)
    ours.load_state_dict(expected.state_dict())
    src = random(BATCH, CELLS, DIM)
    close(ours(src, torch.zeros_like(src), padding_mask), expected(src, src_key_padding_mask=padding_mask))


@either_norm
@pytest.mark.parametrize("padding_mask", [None, some_padding()], ids=["no padding", "padding"])
def test_a_decoder_layer_without_positions_is_that_of_torch(pre_norm: bool, padding_mask: Tensor | None) -> None:
    expected = nn.TransformerDecoderLayer(DIM, HEADS, WIDE, dropout=0.0, batch_first=True, norm_first=pre_norm)
    shake(expected)
    ours = TransformerDecoderLayer(DIM, HEADS, WIDE, dropout=0.0, pre_norm=pre_norm)
    ours.load_state_dict(expected.state_dict())
    tgt, memory = random(BATCH, QUERIES, DIM), random(BATCH, CELLS, DIM, seed=2)
    found = ours(tgt, memory, torch.zeros_like(memory), torch.zeros_like(tgt), padding_mask)
    close(found, expected(tgt, memory, memory_key_padding_mask=padding_mask))


def torch_attention(ours: MultiheadAttention) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    return theirs


def test_positions_are_added_to_queries_and_keys_and_never_to_values() -> None:
    """The post-norm layers, put together from torch's attention."""
    encoder = TransformerEncoderLayer(DIM, HEADS, WIDE, dropout=0.0, pre_norm=False)
    decoder = TransformerDecoderLayer(DIM, HEADS, WIDE, dropout=0.0, pre_norm=False)
    shake(encoder)
    shake(decoder)
    src, pos = random(BATCH, CELLS, DIM), random(BATCH, CELLS, DIM, seed=2)
    tgt, query_pos = random(BATCH, QUERIES, DIM, seed=3), random(BATCH, QUERIES, DIM, seed=4)
    x = encoder.norm1(src + torch_attention(encoder.self_attn)(src + pos, src + pos, src)[0])
    close(encoder(src, pos, None), encoder.norm2(x + encoder.linear2(encoder.linear1(x).relu())))
    q = tgt + query_pos
    x = decoder.norm1(tgt + torch_attention(decoder.self_attn)(q, q, tgt)[0])
    x = decoder.norm2(x + torch_attention(decoder.multihead_attn)(x + query_pos, src + pos, src)[0])
    expected = decoder.norm3(x + decoder.linear2(decoder.linear1(x).relu()))
    close(decoder(tgt, src, pos, query_pos, None), expected)


def transformer(pre_norm: bool, decoder_layers: int = 2) -> Transformer:
    made = Transformer(DIM, HEADS, WIDE, 2, decoder_layers, dropout=0.5, pre_norm=pre_norm).eval()
    shake(made)
    return made


def feature_map(height: int, width: int, canvas: tuple[int, int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features, padding mask and positions of an image on a canvas: random, also on the padding."""
    src, pos = random(1, DIM, *canvas, seed=seed), random(1, DIM, *canvas, seed=seed + 1)
    padding_mask = torch.ones(1, *canvas, dtype=torch.bool)
    padding_mask[:, :height, :width] = False
    return src, padding_mask, pos


@either_norm
@settings(max_examples=8)
@given(height=st.integers(1, 4), width=st.integers(1, 4))
def test_padding_never_influences_the_rest(pre_norm: bool, height: int, width: int) -> None:
    network, queries = transformer(pre_norm), random(QUERIES, DIM, seed=9)
    src, padding_mask, pos = feature_map(height, width, (4, 4))
    with torch.no_grad():
        hs, memory = network(src, padding_mask, pos, queries)
        other = torch.where(padding_mask[:, None], 100 * torch.ones_like(src), src)
        other_hs, other_memory = network(other, padding_mask, pos, queries)
        alone = (x[..., :height, :width] for x in (src, padding_mask, pos))
        alone_hs, alone_memory = network(*alone, queries)
    close(other_hs, hs)
    close(other_memory[..., :height, :width], memory[..., :height, :width])
    close(alone_hs, hs)
    close(alone_memory, memory[..., :height, :width])


@either_norm
def test_images_of_a_batch_never_influence_each_other(pre_norm: bool) -> None:
    network, queries = transformer(pre_norm), random(QUERIES, DIM, seed=9)
    first, second = feature_map(3, 2, (4, 4)), feature_map(4, 4, (4, 4), seed=5)
    with torch.no_grad():
        hs, memory = network(*(torch.cat(pair) for pair in zip(first, second, strict=True)), queries)
        for i, image in enumerate((first, second)):
            alone_hs, alone_memory = network(*image, queries)
            close(hs[:, i : i + 1], alone_hs)
            close(memory[i : i + 1], alone_memory)


@either_norm
def test_the_order_of_the_queries_is_the_order_of_their_answers_and_nothing_else(pre_norm: bool) -> None:
    network, queries, order = transformer(pre_norm), random(QUERIES, DIM, seed=9), [3, 0, 4, 1, 2]
    image = feature_map(3, 4, (4, 4))
    with torch.no_grad():
        close(network(*image, queries[order])[0], network(*image, queries)[0][:, :, order])


@either_norm
def test_every_decoder_layer_answers_through_the_last_norm(pre_norm: bool) -> None:
    network, shallow = transformer(pre_norm, decoder_layers=3), transformer(pre_norm, decoder_layers=1)
    shallow.load_state_dict({k: v for k, v in network.state_dict().items() if k in shallow.state_dict()})
    image, queries = feature_map(3, 4, (4, 4)), random(QUERIES, DIM, seed=9)
    with torch.no_grad():
        hs, memory = network(*image, queries)
        first, _ = shallow(*image, queries)
    assert hs.shape == (3, 1, QUERIES, DIM)
    assert memory.shape == (1, DIM, 4, 4)
    close(first[0], hs[0])
    assert not torch.allclose(hs[0], hs[2])


@either_norm
def test_an_exported_graph_answers_from_the_last_decoder_layer_alone(pre_norm: bool) -> None:
    network, arguments = transformer(pre_norm), (*feature_map(3, 4, (4, 4)), random(QUERIES, DIM, seed=9))
    with torch.no_grad():
        hs, memory = network(*arguments)
        exported_hs, exported_memory = torch.export.export(network, arguments).module()(*arguments)
    assert exported_hs.shape == (1, 1, QUERIES, DIM)
    close(exported_hs[-1], hs[-1])
    close(exported_memory, memory)


def test_only_pre_norm_ends_the_encoder_with_a_norm() -> None:
    assert transformer(pre_norm=False).encoder.norm is None
    assert isinstance(transformer(pre_norm=True).encoder.norm, nn.LayerNorm)


def test_dropout_works_in_training_only() -> None:
    network, image, queries = transformer(pre_norm=False), feature_map(4, 4, (4, 4)), random(QUERIES, DIM)
    with torch.no_grad():
        assert torch.equal(network(*image, queries)[0], network(*image, queries)[0])
        network.train()
        assert not torch.equal(network(*image, queries)[0], network(*image, queries)[0])


def test_every_matrix_starts_xavier_uniform() -> None:
    torch.manual_seed(0)
    network = Transformer(32, 4, 64, 1, 1, dropout=0.0, pre_norm=False)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 2:
            bound = (6 / sum(parameter.shape)) ** 0.5
            assert float(parameter.detach().abs().max()) <= bound, name
            assert float(parameter.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.1), name
