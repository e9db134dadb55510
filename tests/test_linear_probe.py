import math

import numpy as np
import pytest
import torch

from setrep.errors import InputError
from setrep.protocols import linear_probe as room
from setrep.protocols.linear_probe import linear_probe


def clusters(num_items, spread, num_classes=4, dim=6, seed=0):
    """Draw items around class centres that are the same for every seed."""
    centres = torch.randn(num_classes, dim, generator=torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_items) % num_classes
    return centres[labels] + spread * torch.randn(num_items, dim, generator=generator), labels


def scikit_learn(train, labels, test, c):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000))
    return model.fit(train.double().numpy(), labels.numpy()), test.double().numpy()


def test_separable_classes_are_told_apart():
    found = linear_probe(*clusters(80, 0.01), *clusters(40, 0.01, seed=1))
    assert (found.num_train, found.num_test, found.num_classes) == (80, 40, 4)
    assert (found.top1, found.top5, found.worst_class_top1) == (1.0, 1.0, 1.0)
    assert found.is_converged
    assert found.l2 in room.CANDIDATES


@pytest.mark.parametrize("num_classes", [2, 9])
def test_the_probe_is_the_pipeline_of_scikit_learn(num_classes):
    from sklearn.metrics import top_k_accuracy_score

    train, labels = clusters(180, 1.5, num_classes)
    test, test_labels = clusters(90, 1.5, num_classes, seed=1)
    names = torch.arange(num_classes) * 3 - 5  # labels need not count from 0
    found = linear_probe(train, names[labels], test, names[test_labels], l2=[0.02])
    model, values = scikit_learn(train, labels, test, 1 / (0.02 * 180))
    assert found.l2 == 0.02
    assert found.top1 == pytest.approx(model.score(values, test_labels.numpy()))
    assert 1 / num_classes < found.top1 < 1
    by_class = [
        model.score(values[test_labels == c], test_labels[test_labels == c].numpy())
        for c in range(num_classes)
    ]
    assert found.worst_class_top1 == pytest.approx(min(by_class))
    if num_classes > 5:
        scores = model.decision_function(values)
        assert found.top5 == pytest.approx(top_k_accuracy_score(test_labels, scores, k=5))


def test_permuted_labels_leave_chance():
    train, labels = clusters(400, 0.1)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    found = linear_probe(train, labels[order], *clusters(400, 0.1, seed=1), l2=[1e-2])
    # A cluster of 100 test items falls to one class, so the chance is coarse: 0, 1/4, 1/2, ...
    assert found.top1 <= 0.5
    wide, _ = clusters(400, 3.0, dim=20)
    found = linear_probe(wide, labels[order], *clusters(400, 3.0, dim=20, seed=1))
    assert found.top1 == pytest.approx(0.25, abs=0.07)


def test_a_test_class_without_training_items_is_wrong():
    train, labels = clusters(80, 0.01)
    test, test_labels = clusters(40, 0.01, seed=1)
    for absent in range(4):
        kept = labels != absent
        found = linear_probe(train[kept], labels[kept], test, test_labels, l2=[1e-3])
        assert (found.num_classes, found.top1, found.top5) == (3, 0.75, 0.75)
        assert found.worst_class_top1 == 0


def test_the_scale_and_the_place_of_each_feature_change_nothing():
    train, labels = clusters(120, 1.0)
    test, test_labels = clusters(60, 1.0, seed=1)
    plain = linear_probe(train, labels, test, test_labels)
    scale = torch.tensor([1e-4, 1e-2, 1.0, 10.0, 1e3, 1e5])
    shift = torch.arange(6.0)
    moved = linear_probe((train + shift) * scale, labels, (test + shift) * scale, test_labels)
    assert moved == plain
    still = torch.zeros(1)  # a feature that never changes says nothing, and divides nothing by 0
    wider = [torch.cat([x, still.expand(len(x), 1)], dim=1) for x in (train, test)]
    assert linear_probe(wider[0], labels, wider[1], test_labels) == plain


def test_the_same_seed_gives_the_same_and_the_seed_only_chooses_who_is_held_out():
    data = *clusters(60, 2.0), *clusters(60, 2.0, seed=1)
    assert linear_probe(*data, seed=3) == linear_probe(*data, seed=3)
    assert linear_probe(*data, l2=[1e-2], seed=3) == linear_probe(*data, l2=[1e-2], seed=4)


def test_test_items_do_not_choose_the_regularisation():
    train, labels = clusters(100, 1.5)
    test, test_labels = clusters(100, 1.5, seed=1)
    chosen = {
        linear_probe(train, labels, values, names, seed=0).l2
        for values in (test, -test, 100 * test)
        for names in (test_labels, test_labels.flip(0), 3 - test_labels)
    }
    assert len(chosen) == 1


def test_the_regularisation_is_best_on_the_fifth_held_out():
    from sklearn.metrics import log_loss

    train, labels = clusters(100, 2.0, dim=40)
    candidates = (1e-6, 1e-2, 1.0, 1e-1, 1e1)
    chosen = linear_probe(train, labels, train, labels, l2=candidates, seed=2).l2
    is_held_out = room._held_out(labels, 2)
    kept = ~is_held_out
    scores, losses = {}, {}
    for l2 in candidates:
        c = 1 / (l2 * int(kept.sum()))
        model, values = scikit_learn(train[kept], labels[kept], train[is_held_out], c)
        scores[l2] = model.score(values, labels[is_held_out].numpy())
        losses[l2] = log_loss(labels[is_held_out], model.predict_proba(values))
    assert 1 < len(set(scores.values())) < len(scores)  # some are equal
    assert chosen == max(candidates, key=lambda l2: (scores[l2], -losses[l2]))


def test_a_fifth_of_each_class_is_held_out_but_never_its_only_item():
    labels = torch.tensor([0] * 50 + [1] * 5 + [2] * 2 + [3])
    labels = labels[torch.randperm(58, generator=torch.Generator().manual_seed(0))]
    drawn = [room._held_out(labels, seed) for seed in range(20)]
    for is_held_out in drawn:
        assert labels[is_held_out].bincount(minlength=4).tolist() == [10, 1, 1, 0]
    assert not drawn[0].equal(drawn[1])
    assert bool((torch.stack(drawn).any(dim=0) == (labels != 3)).all())  # each has its turn


def test_a_class_of_one_item_is_still_learnt():
    train, labels = clusters(81, 0.01)
    one = torch.cat([(labels != 3).nonzero().squeeze(1), torch.tensor([3])])
    found = linear_probe(train[one], labels[one], *clusters(40, 0.01, seed=1))
    assert found.top1 == 1


def test_a_fit_that_ran_out_of_steps_says_so():
    found = linear_probe(*clusters(80, 1.0), *clusters(40, 1.0), l2=[1e-4], max_steps=2)
    assert (found.num_steps, found.is_converged) == (2, False)


def test_half_precision_and_gradients_are_read_like_other_embeddings():
    train, labels = clusters(40, 0.5)
    half = train.half()
    found = linear_probe(half.float().requires_grad_(), labels, half, labels)
    assert found == linear_probe(half, labels, half, labels)


def test_digits_are_read_as_well_as_scikit_learn_reads_them():
    from sklearn.datasets import load_digits

    pixels, labels = (torch.from_numpy(x) for x in load_digits(return_X_y=True))
    found = linear_probe(pixels[:1200], labels[:1200], pixels[1200:], labels[1200:])
    # LogisticRegression of scikit-learn as it comes, on the same split: 0.913.
    model, values = scikit_learn(pixels[:1200], labels[:1200], pixels[1200:], 1.0)
    assert found.top1 > model.score(values, labels[1200:].numpy()) - 0.01
    assert found.worst_class_top1 < found.top1 < found.top5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_embeddings": torch.ones(8)}, r"train split needs embeddings \[item, dim\]"),
        ({"train_embeddings": torch.ones(0, 3), "train_labels": torch.ones(0)}, "train split"),
        ({"test_labels": torch.zeros(5).long()}, r"test split .* \(4, 3\) and \(5,\)"),
        ({"test_embeddings": torch.full((4, 3), math.nan)}, "test embeddings must be finite"),
        ({"train_embeddings": torch.full((8, 3), math.inf)}, "train embeddings must be finite"),
        ({"test_embeddings": torch.ones(4, 2)}, "found 3 in train and 2 in test"),
        ({"train_labels": torch.ones(8).long()}, "two training classes; found 1"),
        ({"train_labels": torch.arange(8)}, "two training items"),
        ({"l2": []}, r"positive numbers; found \[\]"),
        ({"l2": [0.1, 0.0]}, "positive numbers"),
        ({"l2": [math.nan]}, "positive numbers"),
        ({"max_steps": 0}, "at least 1, not 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line(change, message):
    generator = torch.Generator().manual_seed(0)
    arguments = {
        "train_embeddings": torch.randn(8, 3, generator=generator),
        "train_labels": torch.arange(8) % 2,
        "test_embeddings": torch.randn(4, 3, generator=generator),
        "test_labels": torch.arange(4) % 2,
    }
    with pytest.raises(InputError, match=message) as error:
        linear_probe(**(arguments | change))
    assert "\n" not in str(error.value)


def test_labels_that_cannot_be_held_out_need_one_l2():
    values = torch.from_numpy(np.eye(4))
    labels = torch.arange(4)
    assert linear_probe(values, labels, values, labels, l2=[1e-3]).top1 == 1
