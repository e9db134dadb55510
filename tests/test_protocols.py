import dataclasses
import io
import json
import logging
import os
import typing
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch.utils._python_dispatch import TorchDispatchMode

from setrep.aggregators import CentroidAggregator
from setrep.data.collections import draw_query_gallery
from setrep.data.dataset import ItemDataset, ItemFormat
from setrep.data.one_shot import OneShotRun, OneShotTask, load_one_shot
from setrep.errors import InputError
from setrep.protocols import collections, items
from setrep.protocols.baselines import embed_dataset, evaluate_embedding, pixel_embeddings
from setrep.protocols.collections import (
    evaluate_collections,
    measure_queries,
    paired_difference,
    paired_item_difference,
)
from setrep.protocols.few_shot import evaluate_within_groups
from setrep.protocols.items import evaluate_items
from setrep.protocols.one_shot import evaluate_one_shot, evaluate_one_shot_hausdorff
from setrep.protocols.results import CollectionResult, Evaluation, ItemResult, OneShotResult
from setrep.reports.tables import with_interval

CENTROID = CentroidAggregator(8)


def clustered(num_items, num_classes, *, noise=1.0, dim=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(num_classes, dim, generator=generator)
    labels = torch.arange(num_items) % num_classes
    return centres[labels] + noise * torch.randn(num_items, dim, generator=generator), labels


def vector_dataset(values, labels, keys=None):
    return ItemDataset(
        name="clusters",
        split="test",
        items=values.numpy(),
        labels=labels.numpy(),
        label_names=tuple(f"class {i}" for i in range(int(labels.max()) + 1)),
        item_format=ItemFormat("vector", values.shape[1], 1),
        label_level="label",
        collection_level="sampled" if keys is None else "key",
        keys=None if keys is None else keys.numpy(),
    )


def slow_items(queries, labels, bank, bank_labels, knn_k, temperature, skip_self):
    """Measure one query at a time, from the formulas."""
    right1, right5, first, precisions = [], [], [], []
    for i, (query, label) in enumerate(zip(queries.double(), labels.tolist(), strict=True)):
        cosines = [
            (float(query @ item / query.norm() / item.norm()), -j)
            for j, item in enumerate(bank.double())
            if not (skip_self and i == j)
        ]
        order = [(s, int(bank_labels[-j])) for s, j in sorted(cosines, reverse=True)]
        votes = {}
        for s, c in order[:knn_k]:
            votes[c] = votes.get(c, 0.0) + np.exp(s / temperature)
        best = sorted(votes, key=lambda c: -votes[c])
        right1.append(best[0] == label)
        right5.append(label in best[:5])
        first.append(order[0][1] == label)
        r = sum(c == label for _, c in order)
        hits = [c == label for _, c in order]
        if r:
            precisions.append(sum(sum(hits[: n + 1]) / (n + 1) for n in range(r) if hits[n]) / r)
    by_class = {c: [] for c in labels.tolist()}
    for c, value in zip(labels.tolist(), right1, strict=True):
        by_class[c].append(value)
    worst = min(np.mean(values) for values in by_class.values())
    return [np.mean(right1), np.mean(right5), worst, np.mean(first), np.mean(precisions)]


def numbers(result):
    names = ("knn_top1", "knn_top5", "worst_class_top1", "recall_at_1", "map_at_r")
    return [getattr(result, name) for name in names]


@pytest.mark.parametrize("knn_k", [3, 12])
@pytest.mark.parametrize("chunk", [2_000_000, 70])
def test_leave_one_out_equals_a_loop_over_queries_in_chunks_of_any_size(chunk, knn_k, monkeypatch):
    monkeypatch.setattr(items, "NEIGHBOURS_AT_ONCE", chunk)
    values, labels = clustered(60, 9)
    labels[3] = 77  # a label of one item: wrong everywhere but in MAP@R, which leaves it out
    result = evaluate_items(values, labels, knn_k=knn_k, knn_temperature=0.2)
    expected = slow_items(values, labels, values, labels, knn_k, 0.2, skip_self=True)
    assert numbers(result) == pytest.approx(expected)
    assert (result.num_queries, result.num_bank, result.num_classes) == (60, 59, 10)
    assert result.worst_class_top1 == 0


def test_a_train_bank_equals_a_loop_over_queries():
    bank, bank_labels = clustered(80, 7, seed=0)
    values, labels = clustered(30, 6, seed=0, noise=1.5)
    result = evaluate_items(values, labels, bank=bank, bank_labels=bank_labels, knn_k=15)
    expected = slow_items(values, labels, bank, bank_labels, 15, 0.1, skip_self=False)
    assert numbers(result) == pytest.approx(expected)
    assert (result.num_queries, result.num_bank, result.num_classes) == (30, 80, 6)


def test_items_agree_with_scikit_learn_and_pytorch_metric_learning():
    from sklearn.neighbors import KNeighborsClassifier

    values, labels = clustered(120, 6)
    bank, bank_labels = clustered(90, 6, noise=1.2)
    ours = evaluate_items(values, labels, bank=bank, bank_labels=bank_labels, knn_k=10)
    classifier = KNeighborsClassifier(
        10, weights=lambda distance: np.exp((1 - distance) / 0.1), metric="cosine"
    ).fit(bank.numpy(), bank_labels.numpy())
    assert ours.knn_top1 == pytest.approx(classifier.score(values.numpy(), labels.numpy()))

    accuracy = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    calculator = accuracy.AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r"),
        k="max_bin_count",
        device=torch.device("cpu"),
    )
    unit = torch.nn.functional.normalize(values)
    theirs = calculator.get_accuracy(unit, labels)
    result = evaluate_items(values, labels)
    assert result.recall_at_1 == pytest.approx(theirs["precision_at_1"])
    assert result.map_at_r == pytest.approx(theirs["mean_average_precision_at_r"])


def test_items_depend_on_directions_alone_and_repeat_bit_for_bit():
    values, labels = clustered(100, 10)
    scales = 2.0 ** torch.randint(-3, 4, (100, 1), generator=torch.Generator().manual_seed(0))
    first = evaluate_items(values, labels)
    assert evaluate_items(values * scales, labels) == first
    assert evaluate_items(values, labels) == first


@pytest.mark.parametrize("scale", [1e-36, 1e-30, 1e-16, 1e-12, 1e12, 1e30, 1e36])
def test_items_are_ranked_by_cosine_at_every_scale_that_float32_holds(scale):
    values, labels = clustered(100, 10)
    values *= torch.rand(100, 1, generator=torch.Generator().manual_seed(1)).mul(4).exp()
    expected = numbers(evaluate_items(values, labels))
    assert numbers(evaluate_items(values * scale, labels)) == pytest.approx(expected)
    with_bank = evaluate_items(values, labels, bank=values * scale, bank_labels=labels)
    assert with_bank.recall_at_1 == 1
    wide = values.double() * scale**4  # float64 holds what float32 does not
    assert numbers(evaluate_items(wide, labels)) == pytest.approx(expected)


def test_more_neighbours_than_there_are_become_all_of_them():
    values, labels = clustered(12, 3)
    assert evaluate_items(values, labels, knn_k=200).knn_k == 11
    result = evaluate_items(values, labels, knn_k=200, bank=values, bank_labels=labels)
    assert result.knn_k == 12


def test_identical_embeddings_crowd_a_query_out_of_its_own_neighbours_without_harm():
    values, labels = torch.ones(50, 4), (torch.arange(50) % 7 > 0).long()
    result = evaluate_items(values, labels, knn_k=3)
    expected = slow_items(values, labels, values, labels, 3, 0.1, skip_self=True)
    assert numbers(result) == pytest.approx(expected)


def test_items_without_any_relevant_neighbour_have_no_map_at_r():
    result = evaluate_items(torch.eye(4), torch.arange(4))
    assert result.map_at_r is None
    assert result.recall_at_1 == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": torch.zeros(3).long()}, "one label; found 4 and 3"),
        ({"bank": torch.eye(4)}, "give both or none"),
        ({"bank_labels": torch.arange(4)}, "give both or none"),
        ({"knn_k": 0}, "knn_k must be at least 1"),
        ({"knn_temperature": 0.0}, "temperature must be positive"),
        ({"embeddings": torch.ones(1, 4), "labels": torch.zeros(1).long()}, "a larger split"),
        ({"embeddings": torch.full((4, 4), torch.nan)}, "NaN"),
    ],
)
def test_items_that_cannot_be_compared_are_refused(arguments, message):
    given = {"embeddings": torch.eye(4), "labels": torch.arange(4) % 2} | arguments
    with pytest.raises(InputError, match=message):
        evaluate_items(**given)


def slow_collections(values, dataset, size, seed):
    """Compare every query collection with every gallery collection."""
    draw = draw_query_gallery(dataset, size, seed=seed)

    def centroids(of, offsets):
        return [values[of[a:b]].double().mean(dim=0) for a, b in pairwise(offsets)]

    queries = centroids(draw.query_items, draw.query_offsets)
    gallery = centroids(draw.gallery_items, draw.gallery_offsets)
    first, fifth, precisions = [], [], []
    for query, label in zip(queries, draw.query_labels, strict=True):
        order = sorted(range(len(gallery)), key=lambda j: float((query - gallery[j]).norm()))
        hits = [bool(draw.gallery_labels[j] == label) for j in order]
        r = sum(hits)
        first.append(hits[0])
        fifth.append(any(hits[:5]))
        precisions.append(sum(sum(hits[: n + 1]) / (n + 1) for n in range(r) if hits[n]) / r)
    return [np.mean(first), np.mean(fifth), np.mean(precisions)]


@pytest.mark.parametrize("is_natural", [False, True])
def test_collections_equal_a_loop_over_query_and_gallery(is_natural, monkeypatch):
    monkeypatch.setattr(collections, "COLLECTIONS_AT_ONCE", 7)
    monkeypatch.setattr(collections, "NEIGHBOURS_AT_ONCE", 40)
    values, labels = clustered(240, 6, noise=3.0)
    keys = labels * 8 + torch.arange(240) // 6 % 8 if is_natural else None
    dataset = vector_dataset(values, labels, keys)
    results = evaluate_collections(values, dataset, CENTROID, [1, 3, 5], seed=1, num_bootstrap=50)
    for result, size in zip(results, [1, 3, 5], strict=True):
        expected = slow_collections(values, dataset, size, 1)
        assert [result.recall_at_1, result.recall_at_5, result.map_at_r] == pytest.approx(expected)
        assert result.size == size
        assert result.num_classes == 6
        low, high = result.recall_at_1_ci95
        assert low <= result.recall_at_1 <= high


def test_collections_repeat_for_a_seed_and_differ_for_another():
    values, labels = clustered(200, 5, noise=4.0)
    dataset = vector_dataset(values, labels)
    first, again, other = (
        evaluate_collections(values, dataset, CENTROID, [2], seed=seed, num_bootstrap=20)
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_a_size_that_no_label_can_serve_has_no_numbers(caplog):
    values, labels = clustered(60, 6)
    with caplog.at_level(logging.WARNING):
        results = evaluate_collections(
            values, vector_dataset(values, labels), CENTROID, [5, 6], seed=0, num_bootstrap=10
        )
    assert results[0].num_queries == 6
    assert results[1] == CollectionResult(6, 0, 0, 0, None, None, None, None)
    assert "Collections of size 6 are not evaluated" in caplog.text


@pytest.mark.parametrize("num_classes", [1, 4, 5])
def test_fewer_than_five_classes_have_a_recall_but_no_interval(num_classes):
    values, labels = clustered(100, num_classes, noise=0.01)
    [result] = evaluate_collections(values, vector_dataset(values, labels), CENTROID, [2], seed=0)
    assert result.recall_at_1 == 1
    assert result.recall_at_1_ci95 == (None if num_classes < 5 else (1, 1))
    shown = "100.0 [–]" if num_classes < 5 else "100.0 [100.0, 100.0]"
    assert with_interval(result) == shown


def natural(num_keys, num_labels, *, noise=4.0, dim=8, seed=0):
    """Give each key one item, so that half of the keys of a label become queries."""
    values, labels = clustered(num_keys * num_labels, num_labels, noise=noise, dim=dim, seed=seed)
    return values, vector_dataset(values, labels, torch.arange(len(labels)))


@pytest.mark.parametrize("chunk", [1, 997, 5000])
def test_collections_in_chunks_of_any_size_are_those_in_one(chunk, monkeypatch):
    values, dataset = natural(60, 6)
    draw = draw_query_gallery(dataset, 1, seed=0)
    whole = measure_queries(values, draw, CENTROID)
    assert [len(measure) for measure in whole] == [180] * 3
    monkeypatch.setattr(collections, "NEIGHBOURS_AT_ONCE", chunk)
    for one, other in zip(whole, measure_queries(values, draw, CENTROID), strict=True):
        assert one.equal(other)


class LargestTensor(TorchDispatchMode):
    """Remember how many elements the largest result of any operation had."""

    num_elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        found = result if isinstance(result, tuple | list) else [result]
        sizes = [out.numel() for out in found if isinstance(out, torch.Tensor)]
        self.num_elements = max([self.num_elements, *sizes])
        return result


def test_a_search_never_holds_the_neighbours_of_all_queries(monkeypatch):
    monkeypatch.setattr(collections, "NEIGHBOURS_AT_ONCE", 4_000)
    values, dataset = natural(400, 2, dim=4)
    draw = draw_query_gallery(dataset, 1, seed=0)
    with LargestTensor() as largest:
        first, _, _ = measure_queries(values, draw, CENTROID)
    assert len(first) == 400
    # A chunk is 20 queries of 200 neighbours of 4 dimensions; all queries have 80,000 neighbours.
    assert largest.num_elements <= 20_000


def test_embeddings_of_other_items_and_sizes_below_1_are_refused():
    values, labels = clustered(20, 2)
    dataset = vector_dataset(values, labels)
    with pytest.raises(InputError, match="clusters has 20 items, but there are 19 embeddings"):
        evaluate_collections(values[1:], dataset, CENTROID, [1], seed=0)
    with pytest.raises(InputError, match="must be at least 1"):
        evaluate_collections(values, dataset, CENTROID, [1, 0], seed=0)


def test_the_paired_difference_is_that_of_both_recalls_on_the_same_queries():
    values, labels = clustered(400, 20, noise=1.5)
    noisy = values + 2 * torch.randn(400, 8, generator=torch.Generator().manual_seed(1))
    wide = torch.cat([noisy, 100 * noisy[:, :2].flip(0)], dim=1)
    dataset = vector_dataset(values, labels)
    found = paired_difference(
        values, wide, dataset, CENTROID, 2, other_aggregator=lambda x: CENTROID(x)[:, :8], seed=3
    )
    ours, theirs = (
        evaluate_collections(x, dataset, CENTROID, [2], seed=3, num_bootstrap=2)[0].recall_at_1
        for x in (values, noisy)
    )
    assert found.difference == pytest.approx(ours - theirs)
    assert 0 < found.ci95[0] < found.difference < found.ci95[1]
    back = paired_difference(noisy, values, dataset, CENTROID, 2, seed=3)
    assert back.ci95 == pytest.approx((-found.ci95[1], -found.ci95[0]))
    same = paired_difference(values, values, dataset, CENTROID, 2, seed=3)
    assert (same.difference, same.ci95) == (0, (0, 0))


def test_the_paired_difference_of_items_is_that_of_both_recalls():
    values, labels = clustered(400, 20, noise=1.2)
    noisy = values + 2 * torch.randn(400, 8, generator=torch.Generator().manual_seed(1))
    noisy[50:90] = noisy[50]  # equal ones crowd each other out
    dataset = vector_dataset(values, labels)
    found = paired_item_difference(values, noisy, dataset, seed=3)
    ours, theirs = (evaluate_items(x, labels).recall_at_1 for x in (values, noisy))
    assert found.difference == pytest.approx(ours - theirs)
    assert (found.size, found.num_queries, found.num_classes) == (None, 400, 20)
    assert 0 < found.ci95[0] < found.difference < found.ci95[1]
    same = paired_item_difference(values, 3 * values, dataset, seed=3)
    assert (same.difference, same.ci95) == (0, (0, 0))
    with pytest.raises(InputError, match="400 items, but there are 399 embeddings"):
        paired_item_difference(values, noisy[1:], dataset, seed=3)


def test_a_paired_difference_over_fewer_than_five_classes_has_no_interval():
    values, labels = clustered(80, 4)
    dataset = vector_dataset(values, labels)
    assert paired_difference(values, -values, dataset, CENTROID, 2, seed=0).ci95 is None
    assert paired_item_difference(values, -values, dataset, seed=0).ci95 is None


def drawing(corners, size=105):
    image = Image.new("1", (size, size), 1)
    ImageDraw.Draw(image).line(corners, fill=0, width=3)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


SHAPES = (
    [(6, 6), (46, 46)],
    [(6, 26), (46, 26)],
    [(26, 6), (26, 46), (46, 46)],
    [(6, 6), (46, 6), (6, 46), (46, 46)],
)


def fake_task():
    """Four shapes, tested on the same ones drawn elsewhere; run 2 has one wrong answer."""
    moved = [[(x + 50, y + 45) for x, y in shape] for shape in SHAPES]
    training = [drawing(shape) for shape in SHAPES]
    test = [drawing(moved[i]) for i in (2, 0, 3, 1)]
    right, wrong = np.array([2, 0, 3, 1]), np.array([2, 1, 3, 1])
    runs = (OneShotRun("run01", test, training, right), OneShotRun("run02", test, training, wrong))
    return OneShotTask(runs, "four shapes")


def test_the_modified_hausdorff_distance_of_ink_ignores_where_a_shape_is_drawn():
    assert evaluate_one_shot_hausdorff(fake_task()) == OneShotResult(2, 0.125, (0.0, 0.25))


def test_a_blank_drawing_is_refused():
    blank = OneShotRun("run01", [drawing([(0, 0)])], [drawing([(200, 200), (300, 300)])], [0])
    with pytest.raises(InputError, match="no dark pixel"):
        evaluate_one_shot_hausdorff(OneShotTask((blank,), ""))


def test_one_shot_answers_with_the_nearest_embedding():
    seen = []

    def sorted_column_and_row_sums(images):
        seen.append(images)
        sums = [images.float().sum(dim=dim).flatten(1).sort(dim=1).values for dim in (2, 3)]
        return torch.cat(sums, dim=1)

    image_format = ItemFormat("image", channels=1, size=35, is_inverted=True)
    result = evaluate_one_shot(fake_task(), sorted_column_and_row_sums, image_format)
    assert result == OneShotResult(2, 0.125, (0.0, 0.25))
    assert [(batch.dtype, tuple(batch.shape)) for batch in seen] == [
        (torch.uint8, (8, 1, 35, 35))
    ] * 2
    assert seen[0].amax() == 255
    assert seen[0].float().mean() < 40  # ink is bright and rare

    with pytest.raises(InputError, match="run01 are not all finite"):
        evaluate_one_shot(fake_task(), lambda x: x.flatten(1) * torch.nan, image_format)
    with pytest.raises(InputError, match="has no runs"):
        evaluate_one_shot(OneShotTask((), ""), pixel_embeddings, image_format)


@pytest.mark.real_data
@pytest.mark.skipif("SETREP_DATA" not in os.environ, reason="SETREP_DATA is not set")
def test_the_published_one_shot_baseline_is_reproduced():
    task = load_one_shot(os.path.join(os.environ["SETREP_DATA"], "one-shot", "runs_01_10.zip"))
    result = evaluate_one_shot_hausdorff(task)
    expected = (0.45, 0.35, 0.4, 0.25, 0.3, 0.15, 0.6, 0.35, 0.4, 0.55)
    assert result.error_per_run == pytest.approx(expected)
    assert result.error_mean == pytest.approx(0.38)


def test_tasks_within_groups_are_solved_by_right_embeddings_and_guessed_by_random_ones():
    labels = torch.arange(600) // 6
    groups = labels // 25
    right = torch.nn.functional.one_hot(labels).float()
    assert evaluate_within_groups(right, labels, groups, num_tasks=8, seed=0).error_mean == 0
    random = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
    result = evaluate_within_groups(random, labels, groups, num_tasks=200, seed=0)
    assert result.error_mean == pytest.approx(0.95, abs=0.02)
    assert result.num_runs == len(result.error_per_run) == 200
    assert result == evaluate_within_groups(random, labels, groups, num_tasks=200, seed=0)
    assert result != evaluate_within_groups(random, labels, groups, num_tasks=200, seed=1)


def test_tasks_never_leave_their_group():
    # Both groups have the same embeddings, so a task that crossed groups would find twins.
    labels = torch.arange(80) // 4
    values = torch.nn.functional.one_hot(labels % 10).float()
    result = evaluate_within_groups(values, labels, labels // 10, num_tasks=50, seed=0)
    assert result.error_mean == 0


def test_small_labels_and_groups_are_left_out_of_tasks_and_none_left_is_refused():
    labels = torch.tensor([0, 0, 1, 1, 2, 3, 3, 4])
    groups = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
    values = torch.nn.functional.one_hot(labels).float()
    result = evaluate_within_groups(values, labels, groups, num_tasks=3, seed=0)
    assert result.error_per_run == (0, 0, 0)
    with pytest.raises(InputError, match="two labels of two items each; found none among 3 items"):
        evaluate_within_groups(values[5:], labels[5:], groups[5:], seed=0)


def test_pixels_are_scaled_and_vectors_are_left_as_they_are():
    images = torch.tensor([[[[0, 51], [102, 255]]]], dtype=torch.uint8)
    torch.testing.assert_close(pixel_embeddings(images), torch.tensor([[0.0, 0.2, 0.4, 1.0]]))
    vectors = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    assert pixel_embeddings(vectors).equal(vectors.float())


def test_a_data_set_is_embedded_in_order_whatever_the_batch_size():
    values, labels = clustered(23, 3)
    dataset = vector_dataset(values, labels)
    for batch_size in (1, 10, 100):
        assert embed_dataset(dataset, lambda x: 2 * x, batch_size=batch_size).equal(2 * values)


def test_every_measure_of_an_embedding_comes_together_and_goes_into_json():
    values, labels = clustered(60, 6)
    images = (values.reshape(60, 1, 2, 4).repeat(1, 1, 4, 2) * 20 + 128).clamp(0, 255).byte()
    dataset = dataclasses.replace(
        vector_dataset(values, labels),
        items=images.numpy(),
        item_format=ItemFormat("image", 1, 8, is_inverted=True),
    )
    scores = evaluate_embedding(
        pixel_embeddings,
        dataset,
        CentroidAggregator(64),
        [1, 50],
        seed=0,
        num_bootstrap=10,
        one_shot=fake_task(),
    )
    read = json.loads(json.dumps(dataclasses.asdict(scores), allow_nan=False))
    assert set(read) == {"items", "collections", "one_shot"}
    assert set(read["items"]) == set(typing.get_type_hints(ItemResult))
    assert read["collections"][1]["recall_at_1"] is None
    assert len(read["collections"][0]["recall_at_1_ci95"]) == 2
    assert read["one_shot"]["num_runs"] == 2


def test_the_fields_of_an_evaluation_are_those_of_its_schema():
    expected = {
        Evaluation: "schema protocol dataset source_note split label_level collection_level seed "
        "encoder aggregator model_sha256 items collections linear_probe one_shot bounds baselines "
        "seconds",
        ItemResult: "num_queries num_bank num_classes knn_k knn_temperature knn_top1 knn_top5 "
        "worst_class_top1 recall_at_1 map_at_r",
        CollectionResult: "size num_queries num_gallery num_classes recall_at_1 recall_at_5 "
        "map_at_r recall_at_1_ci95",
        OneShotResult: "num_runs error_mean error_per_run",
    }
    for result, names in expected.items():
        assert [field.name for field in dataclasses.fields(result)] == names.split()


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-5])
def test_items_near_one_point_are_ranked_as_float64_ranks_them(spread):
    """Lengths in float32 differ by 1e-7, cosines here by spread squared."""
    generator = torch.Generator().manual_seed(0)
    centre, noise = torch.randn(16, generator=generator), torch.randn(300, 16, generator=generator)
    embeddings = torch.nn.functional.normalize(centre + spread * noise)
    labels = torch.arange(300) % 7
    wide = embeddings.double() / embeddings.double().norm(dim=1, keepdim=True)
    distance = torch.stack([(wide - row).square().sum(dim=1) for row in wide])
    distance.fill_diagonal_(torch.inf)
    nearest = distance.argmin(dim=1)
    expected = float((labels[nearest] == labels).double().mean())
    assert evaluate_items(embeddings, labels).recall_at_1 == pytest.approx(expected, abs=1e-12)
