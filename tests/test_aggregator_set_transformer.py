"""The set transformer against a loop written from its paper, a peer, and its own chunks."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep.aggregators import build_aggregator, set_transformer
from setrep.collection import CollectionBatch
from setrep.errors import InputError
from tests.learned_aggregators import (  # noqa: F401
    DIM,
    assert_equal_to,
    build,
    draw,
    joined,
    pyg,
    sizes_and_seed,
)
from tests.set_transformer_reference import set_transformer as reference


@pytest.mark.parametrize("num_inducing", [0, 3])
@pytest.mark.parametrize(("num_heads", "num_seeds"), [(1, 1), (3, 2)])
@sizes_and_seed
@settings(max_examples=5, deadline=None)
def test_it_is_the_paper_s_set_transformer(num_inducing, num_heads, num_seeds, sizes, seed):
    options = {"num_inducing": num_inducing, "num_heads": num_heads, "num_seeds": num_seeds}
    aggregator = build("set_transformer", seed, **options)
    assert_equal_to(reference, aggregator, draw(sizes, seed), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("num_inducing", [0, 2])
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=30),
    limit=st.sampled_from([1, 300, 2000, 2**22]),
)
@settings(max_examples=20, deadline=None)
def test_how_collections_are_chunked_changes_nothing(num_inducing, sizes, limit):
    aggregator = build("set_transformer", num_inducing=num_inducing)
    batch = joined(draw(sizes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(set_transformer, "CHUNK_SCORES", limit)
        found = aggregator(batch)
    alone = torch.cat([aggregator(batch.select([b])) for b in range(len(batch))])
    torch.testing.assert_close(found, alone, rtol=1e-10, atol=1e-10)


@given(sizes=st.lists(st.integers(1, 60), max_size=200))
@settings(max_examples=50, deadline=None)
def test_chunks_hold_each_collection_once_and_stay_small(sizes):
    limit = 3000
    aggregator = build_aggregator("set_transformer", 4, num_heads=2)
    offsets = torch.tensor([0, *sorted(sizes)]).cumsum(0)
    by_size = CollectionBatch(torch.arange(4.0 * sum(sizes)).reshape(-1, 4), offsets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(set_transformer, "CHUNK_SCORES", limit)
        chunks = list(aggregator._chunks(by_size))
    assert [size for chunk in chunks for size in chunk.sizes.tolist()] == sorted(sizes)
    assert torch.equal(torch.cat([by_size.values[:0], *(c.values for c in chunks)]), by_size.values)
    for chunk in chunks:
        longest = int(chunk.sizes.max())
        assert len(chunk) == 1 or len(chunk) * longest * (4 + 2 * longest) <= limit
    # The next collection would not have fitted, so there are not more chunks than needed.
    for chunk, following in pairwise(chunks):
        longest = int(following.sizes[0])
        assert (len(chunk) + 1) * longest * (4 + 2 * longest) > limit


def test_one_large_collection_among_many_small_ones_is_padded_alone():
    aggregator = build_aggregator("set_transformer", 8)
    offsets = torch.tensor([0, *[3] * 10_000, 1000]).cumsum(0)
    chunks = list(aggregator._chunks(CollectionBatch(torch.zeros(31_000, 8), offsets)))
    padded = sum(len(chunk) * int(chunk.sizes.max()) for chunk in chunks)
    assert padded < 2 * 31_000


@pytest.mark.parametrize(("num_heads", "num_seeds", "num_blocks"), [(1, 1, 1), (3, 2, 2)])
def test_it_agrees_with_torch_geometric(pyg, num_heads, num_seeds, num_blocks):  # noqa: F811
    aggregator = build(
        "set_transformer", num_heads=num_heads, num_seeds=num_seeds, num_blocks=num_blocks
    )
    peer = pyg.SetTransformerAggregation(
        DIM, num_seeds, num_blocks, 0, num_heads, layer_norm=True
    ).double()
    shift = 50.0  # so that the peer's rFF, with no Z added and no weights of ours, is linear
    pool = aggregator.pool
    with torch.no_grad():
        for theirs, ours in zip(peer.encoders, aggregator.blocks, strict=True):
            copy_block(theirs.mab, ours.block)
        copy_block(peer.pma.mab, pool.block)
        pool.feedforward.weight.zero_()
        pool.feedforward.bias.fill_(shift)
        peer.pma.lin.weight.copy_(torch.eye(DIM))
        peer.pma.lin.bias.fill_(shift)
        peer.pma.seed.copy_(pool.seeds)
    batch = joined(draw([4, 1, 9, 3]))
    expected = peer(batch.values, batch.index)
    torch.testing.assert_close(aggregator(batch), expected, rtol=1e-9, atol=1e-9)


def copy_block(theirs, ours):
    weights = [ours.query.weight, ours.key.weight, ours.value.weight]
    theirs.attn.in_proj_weight.copy_(torch.cat(weights))
    theirs.attn.in_proj_bias.zero_()
    theirs.attn.out_proj.weight.copy_(ours.output.weight)
    theirs.attn.out_proj.bias.zero_()
    theirs.lin.load_state_dict(ours.feedforward.state_dict())
    theirs.layer_norm1.load_state_dict(ours.attended_norm.state_dict())
    theirs.layer_norm2.load_state_dict(ours.norm.state_dict())


def test_heads_that_do_not_divide_the_dimensions_are_refused():
    for name in ("pma", "set_transformer"):
        with pytest.raises(InputError, match="4 does not: choose one of 1, 2, 3, 6"):
            build_aggregator(name, 6, num_heads=4)
