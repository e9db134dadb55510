"""One-shot tasks, baselines, and all measures of an embedding together."""

import dataclasses
import io
import json
import os
import typing

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from setrep.aggregators import CentroidAggregator
from setrep.data.dataset import ItemFormat
from setrep.data.one_shot import OneShotRun, OneShotTask, load_one_shot
from setrep.errors import InputError
from setrep.protocols.baselines import embed_dataset, evaluate_embedding, pixel_embeddings
from setrep.protocols.few_shot import evaluate_within_groups
from setrep.protocols.one_shot import evaluate_one_shot, evaluate_one_shot_hausdorff
from setrep.protocols.results import CollectionResult, Evaluation, ItemResult, OneShotResult
from tests.embeddings import clustered, vector_dataset
from tests.fakes import REAL


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
@REAL
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
        "encoder aggregator model_sha256 items collections class_balance linear_probe one_shot "
        "bounds baselines seconds",
        ItemResult: "num_queries num_bank num_classes knn_k knn_temperature knn_top1 knn_top5 "
        "worst_class_top1 recall_at_1 map_at_r",
        CollectionResult: "size num_queries num_gallery num_classes recall_at_1 recall_at_5 "
        "map_at_r recall_at_1_ci95",
        OneShotResult: "num_runs error_mean error_per_run",
    }
    for result, names in expected.items():
        assert [field.name for field in dataclasses.fields(result)] == names.split()
