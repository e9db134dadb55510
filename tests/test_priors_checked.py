"""The prior from pairs that were looked at: consistent, whatever the negatives look like."""

import numpy as np
import pytest
import torch

from setrep.errors import InputError
from setrep.priors import CheckedPairs, estimate, from_labels, pairs_to_check
from tests.fakes import REAL


def twins(tau_plus: float, num_random: int, seed: int):
    """Draw similarities where one negative in twenty is drawn as the positives are."""
    generator = torch.Generator().manual_seed(seed)
    positive = 3 + torch.randn(300, generator=generator)
    is_positive = torch.rand(num_random, generator=generator) < tau_plus
    is_twin = torch.rand(num_random, generator=generator) < 0.05
    mean = 3 * (is_positive | is_twin).float()
    return positive, mean + torch.randn(num_random, generator=generator), is_positive


def look_at(random, is_positive, places) -> CheckedPairs:
    return CheckedPairs(random[places], is_positive[places])


def errors(tau_plus: float, num_checked: int, num_seeds: int = 40) -> tuple[np.ndarray, float]:
    """Return relative errors, and how many intervals held the truth."""
    values, num_covered = [], 0
    for seed in range(num_seeds):
        positive, random, is_positive = twins(tau_plus, 20_000, seed)
        places = pairs_to_check(positive, random, num_checked, seed=seed)
        found = estimate(positive, random, checked=look_at(random, is_positive, places))
        values.append(found.value / tau_plus - 1)
        num_covered += found.interval[0] <= tau_plus <= found.interval[1]
    return np.array(values), num_covered / num_seeds


def test_twins_do_not_mislead_where_pairs_were_looked_at():
    found, covered = errors(0.1, 300)
    assert abs(found.mean()) < 0.03
    assert found.std() < 0.1
    assert covered >= 0.85
    positive, random, _ = twins(0.1, 20_000, 0)
    assert estimate(positive, random, num_bootstrap=1).value > 0.13  # the curve takes them along


def test_a_rare_prior_needs_a_few_hundred_answers():
    found, covered = errors(0.01, 600)
    assert abs(found.mean()) < 0.08
    assert found.std() < 0.2
    assert covered >= 0.85


def test_what_is_drawn_is_above_most_positive_pairs_and_by_chance():
    positive, random, _ = twins(0.1, 20_000, 0)
    one, again, other = (pairs_to_check(positive, random, 200, seed=s) for s in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert len(one.unique()) == 200
    assert bool((random[one] >= positive.quantile(0.8)).all())
    above = (random >= positive.quantile(0.8)).sum()
    assert 600 < above < 900  # fewer than three times 300: then the 900 most similar ones
    drawn = pairs_to_check(positive, random, 300)
    assert bool((random[drawn] >= random.topk(900).values[-1]).all())
    assert float(random[drawn].min()) < float(positive.quantile(0.8))
    everyone = pairs_to_check(positive, random, 10**6)
    assert torch.equal(everyone.sort().values, torch.arange(len(random)))


def test_blind_answers_on_all_pairs_are_a_count():
    positive, random, is_positive = twins(0.3, 5000, 0)
    checked = CheckedPairs(random, is_positive)
    found = estimate(positive, random, checked=checked)
    assert found.value == pytest.approx(float(is_positive.float().mean()), rel=0.01)


def test_only_the_order_of_similarities_matters():
    positive, random, is_positive = (
        x.double() if x.is_floating_point() else x for x in twins(0.1, 20_000, 0)
    )
    places = pairs_to_check(positive, random)
    found = estimate(positive, random, checked=look_at(random, is_positive, places))
    moved = look_at(random.exp(), is_positive, places)
    assert estimate(positive.exp(), random.exp(), checked=moved) == found


def test_a_prior_never_exceeds_one():
    same = torch.linspace(0, 1, 400)
    checked = CheckedPairs(same, torch.ones(400, dtype=torch.bool))
    found = estimate(same, same + 0.2, checked=checked)
    assert found.value == 1
    assert found.interval[1] == 1


@REAL
def test_pairs_of_omniglot_are_counted_where_similarities_alone_say_too_much():
    from setrep.data.registry import load_dataset

    data = load_dataset("omniglot", subset="small1", image_size=32)
    labels = torch.from_numpy(data.labels)
    items = torch.tensor(data.items).flatten(1).float()
    items = torch.nn.functional.normalize(items - items.mean(dim=1, keepdim=True))
    truth = from_labels(labels).value
    ratios = []
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        one = torch.randint(len(labels), (100_000,), generator=generator)
        other = (one + torch.randint(1, len(labels), one.shape, generator=generator)) % len(labels)
        random = (items[one] * items[other]).sum(dim=1)
        is_positive = labels[one] == labels[other]
        positive = random[is_positive][:300]
        places = pairs_to_check(positive, random, 600, seed=seed)
        found = estimate(positive, random, checked=look_at(random, is_positive, places))
        ratios.append(found.value / truth)
    assert float(np.mean(ratios)) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("num_positive", [20, 30])
def test_what_was_drawn_is_enough_whatever_the_draw(num_positive):
    for seed in range(40):
        positive, random, is_positive = twins(0.1, 20_000, seed)
        places = pairs_to_check(positive[:num_positive], random, 300, seed=seed)
        estimate(positive[:num_positive], random, checked=look_at(random, is_positive, places))


def test_without_a_positive_answer_the_interval_holds_zero():
    positive, random, _ = twins(0.1, 20_000, 0)
    places = pairs_to_check(positive, random)
    nobody = CheckedPairs(random[places], torch.zeros(len(places), dtype=torch.bool))
    found = estimate(positive, random, checked=nobody)
    assert found.value == 0 == found.interval[0] < found.interval[1]


@pytest.mark.parametrize("answers", [torch.ones(300), torch.ones(10, dtype=torch.bool)])
def test_answers_that_are_no_answers_are_refused(answers):
    checked = CheckedPairs(torch.linspace(0, 1, 300), answers)
    with pytest.raises(InputError, match="must say true or false; found"):
        estimate(torch.linspace(0, 1, 50), torch.linspace(0, 1, 500), checked=checked)


def test_similarities_of_a_graph_are_taken_as_numbers():
    positive, random, _ = twins(0.1, 5000, 0)
    expected = estimate(positive, random, num_bootstrap=2)
    assert estimate(positive.requires_grad_(), random.requires_grad_(), num_bootstrap=2) == expected


@pytest.mark.parametrize(
    ("num_pairs", "positives", "message"),
    [
        (300, torch.linspace(0, 1, 14), "At least 15 positive pairs .* found 14"),
        (10, torch.linspace(0, 1, 50), "asked for 10 of 500"),
        (300, torch.full((50,), torch.nan), "positive similarities must be finite"),
    ],
)
def test_nothing_to_look_at_is_refused(num_pairs, positives, message):
    with pytest.raises(InputError, match=message):
        pairs_to_check(positives, torch.linspace(0, 1, 500), num_pairs)


@pytest.mark.parametrize(
    ("similarities", "positives", "message"),
    [
        (torch.ones(100), torch.linspace(0, 2, 50), "found 1 and 25"),
        (torch.linspace(3, 4, 100), torch.linspace(0, 2, 50), "found 100 and 0"),
        (torch.linspace(3, 4, 100).log().sub(2).log(), torch.linspace(0, 2, 50), "checked .*NaN"),
    ],
)
def test_too_few_answers_are_refused(similarities, positives, message):
    checked = CheckedPairs(similarities, torch.zeros(len(similarities), dtype=torch.bool))
    with pytest.raises(InputError, match=message):
        estimate(positives, torch.linspace(0, 4, 500), checked=checked)
