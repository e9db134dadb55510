"""Methods, losses and miners by name: from a config to what a step does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from setrep.aggregators import Aggregator, build_aggregator
from setrep.config import METHOD_OF_LOSS, Config
from setrep.encoders import ItemEncoder, build_encoder
from setrep.encoders.item_encoder import build_mlp
from setrep.errors import InputError, nearest
from setrep.item_format import ItemFormat
from setrep.losses import (
    ContrastiveLoss,
    DebiasedBothLoss,
    DebiasedNegativesLoss,
    DebiasedPositivesLoss,
    DebiasedTripletLoss,
    DifficultyWeightedLoss,
    HardNegativesLoss,
    NPairLoss,
    NTXentLoss,
    SupConLoss,
    TripletMarginLoss,
)
from setrep.methods.collections import CollectionMethod, Objective
from setrep.methods.contrastive import ContrastiveMethod
from setrep.methods.difficulty import DifficultyMethod
from setrep.methods.method import Method
from setrep.methods.prior import LabelledPrior
from setrep.methods.subcollections import SubcollectionMethod
from setrep.methods.supervised import SupervisedMethod
from setrep.miners import BatchAllMiner, BatchHardMiner, HardNegativeMiner, Miner, SemiHardMiner

T = TypeVar("T")
PRIOR_BEFORE_AUTO = 0.1  # until it is estimated: in the steps of the forecast

MINERS: dict[str, Callable[[Config], Miner]] = {
    "batch_all": lambda c: BatchAllMiner(positives=c.miner.positives),
    "batch_hard": lambda c: BatchHardMiner(positives=c.miner.positives),
    "semi_hard": lambda c: SemiHardMiner(
        c.loss.margin, positives=c.miner.positives, distance=c.loss.distance
    ),
    "hard_negative": lambda c: HardNegativeMiner(positives=c.miner.positives),
}
LOSSES: dict[str, Callable[[Config], TripletMarginLoss | SupConLoss]] = {
    "triplet": lambda c: TripletMarginLoss(
        c.loss.margin,
        distance=c.loss.distance,
        soft=c.loss.soft,
        reduction=c.loss.reduction,
    ),
    "supcon": lambda c: SupConLoss(c.loss.temperature, positives=c.miner.positives),
}


def tau_plus_of(config: Config) -> float:
    """Return the prior that a loss starts with."""
    asked = config.loss.tau_plus
    return PRIOR_BEFORE_AUTO if isinstance(asked, str) else asked


def debiased_negatives(config: Config) -> DebiasedNegativesLoss:
    """Build debiased negatives."""
    return DebiasedNegativesLoss(
        config.loss.temperature,
        tau_plus=tau_plus_of(config),
        views=config.loss.views,
        drop_false_negatives=config.loss.drop_false_negatives,
    )


def debiased_positives(config: Config) -> DebiasedPositivesLoss:
    """Build debiased positives."""
    return DebiasedPositivesLoss(
        config.loss.temperature,
        tau_plus=tau_plus_of(config),
        estimator=config.loss.estimator,
        views=config.loss.views,
        drop_false_negatives=config.loss.drop_false_negatives,
    )


def hard_negatives(config: Config) -> HardNegativesLoss:
    """Build debiased and hard negatives."""
    drop = config.loss.drop_false_negatives
    if drop == "published":
        raise InputError(
            "loss.drop_false_negatives='published' is not defined for hard_negatives: use exclude."
        )
    return HardNegativesLoss(
        config.loss.temperature,
        tau_plus=tau_plus_of(config),
        beta=config.loss.beta,
        views=config.loss.views,
        drop_false_negatives=drop,
    )


CONTRASTIVE_LOSSES: dict[str, Callable[[Config], ContrastiveLoss | NPairLoss]] = {
    "nt_xent": lambda c: NTXentLoss(
        c.loss.temperature, drop_false_negatives=c.loss.drop_false_negatives != "none"
    ),
    "n_pair": lambda c: NPairLoss(l2_weight=c.loss.l2_weight),
    "debiased_negatives": debiased_negatives,
    "hard_negatives": hard_negatives,
    "debiased_positives": debiased_positives,
    "debiased_both": lambda c: DebiasedBothLoss(
        debiased_positives(c), debiased_negatives(c), c.loss.positives_weight
    ),
}
PRIORLESS = ("nt_xent", "n_pair", "triplet", "supcon")
DEBIASED = ("debiased_negatives", "hard_negatives", "debiased_positives", "debiased_both")
# Which losses read an option that not all have; data sets set no default for these.
READERS: dict[str, tuple[str, ...]] = {
    "margin": ("triplet",),
    "distance": ("triplet",),
    "reduction": ("triplet",),
    "beta": ("hard_negatives",),
    "estimator": ("debiased_positives", "debiased_both"),
    "views": DEBIASED,
    "drop_false_negatives": ("nt_xent", *DEBIASED),
    "l2_weight": ("n_pair",),
    "positives_weight": ("debiased_both",),
}


def build_supervised(config: Config, item_format: ItemFormat) -> Method:
    """Build the method that learns from labels, at the level that is asked for."""
    objective = objective_of(config)
    refuse_unread(config)
    encoder = build_encoder(config.encoder, item_format)
    aggregator = aggregator_above(encoder, config)
    level = config.training.level
    if level == "items":
        return SupervisedMethod(encoder, aggregator, *objective, start_step=config.miner.start_step)
    if config.miner.start_step or config.miner.positives != "any":
        raise InputError(
            "The positives of a collection are all others of its label: at --level collections and "
            "both, leave miner.start_step at 0 and miner.positives at any."
        )
    if config.episode.collections_per_class < 2:
        raise InputError(
            f"At --level {level} a collection needs another of its label in the episode: "
            f"episode.collections_per_class must be at least 2, not 1."
        )
    if level == "collections":
        return CollectionMethod(encoder, aggregator, objective)
    weight = collections_weight_of(config)
    return CollectionMethod(encoder, aggregator, objective, objective, weight=weight)


def collections_weight_of(config: Config) -> float:
    """Return the weight of the loss on collections beside one on items."""
    weight = config.training.collections_weight
    if not 0 < weight < 1:
        raise InputError(
            f"At --level both training.collections_weight must lie between 0 and 1, not at "
            f"{weight:g}. For one loss alone ask for --level collections or items."
        )
    return weight


def objective_of(config: Config) -> Objective:
    """Build a loss that learns from labels, and its miner where it takes triplets."""
    loss = choose("loss", config.loss.name, LOSSES)(config)
    miner = choose("miner", config.miner.name, MINERS)(config)
    return Objective(loss, miner if config.loss.name == "triplet" else None)


def build_contrastive(config: Config, item_format: ItemFormat) -> Method:
    """Build the method that learns from views of items, or from parts of collections."""
    loss = choose("loss", config.loss.name, CONTRASTIVE_LOSSES)(config)
    refuse_unread(config)
    level, num_parts = config.training.level, config.episode.collections_per_class
    counts = [("views.num_views", config.views.num_views)] if level != "collections" else []
    counts += [("episode.collections_per_class", num_parts)] if level != "items" else []
    for option, count in counts:
        if config.loss.name == "n_pair" and count != 2:
            raise InputError(f"The n_pair loss takes two views, not {option}={count}.")
    encoder = build_encoder(config.encoder, item_format)
    aggregator = aggregator_above(encoder, config)
    prior = None if config.loss.name in PRIORLESS else prior_of(config)
    head = head_above(encoder.dim, config)
    if level == "items":
        return ContrastiveMethod(
            encoder, aggregator, head, loss, num_views=config.views.num_views, prior=prior
        )
    is_mixed = level == "both"
    return SubcollectionMethod(
        encoder,
        aggregator,
        head_above(aggregator.dim_out, config),
        loss,
        num_parts=num_parts,
        item_head=head if is_mixed else None,
        weight=collections_weight_of(config) if is_mixed else 1.0,
        num_views=config.views.num_views,
        prior=prior,
    )


def build_difficulty(config: Config, item_format: ItemFormat) -> Method:
    """Build the method of two encoders."""
    if config.loss.name != "difficulty_weighted":
        raise InputError(
            f"The method difficulty_weighted has one loss, difficulty_weighted, "
            f"not loss.name={config.loss.name}."
        )
    refuse_unread(config)
    if config.training.level != "items":
        raise InputError(
            "The method difficulty_weighted compares items; --level collections and both are for "
            "supervised and contrastive."
        )
    if config.views.num_views != 2:
        raise InputError(
            "The method difficulty_weighted takes two views, not "
            f"views.num_views={config.views.num_views}."
        )
    tau_plus = tau_plus_of(config)
    encoder, biased = (build_encoder(config.encoder, item_format) for _ in range(2))
    return DifficultyMethod(
        encoder,
        aggregator_above(encoder, config),
        head_above(encoder.dim, config),
        DifficultyWeightedLoss(config.loss.temperature, tau_plus=tau_plus),
        biased,
        head_above(biased.dim, config),
        DebiasedTripletLoss(tau_plus=tau_plus),
        biased_lr_scale=config.optimizer.biased_lr_scale,
        prior=prior_of(config),
    )


def refuse_unread(config: Config) -> None:
    """Refuse what is asked of a loss, or of a level, that does not have it."""
    training = config.training
    usual_weight = type(training).model_fields["collections_weight"].default
    if training.level != "both" and training.collections_weight != usual_weight:
        raise InputError(
            f"training.collections_weight={training.collections_weight:g} is read at --level both "
            f"only, not at {training.level}; leave it at {usual_weight}."
        )
    name, loss = config.loss.name, config.loss
    if name in PRIORLESS and loss.tau_plus == "auto":
        raise InputError(f"The loss {name} corrects for no prior: loss.tau_plus=auto asks for one.")
    for option, readers in READERS.items():
        usual, asked = type(loss).model_fields[option].default, getattr(loss, option)
        if asked != usual and name in METHOD_OF_LOSS and name not in readers:
            raise InputError(
                f"The loss {name} has no loss.{option}, but {asked} was asked; leave it at "
                f"{usual}. Read by: {', '.join(readers)}."
            )


def aggregator_above(encoder: ItemEncoder, config: Config) -> Aggregator:
    """Build the aggregator of the encoder's embeddings."""
    asked = config.aggregator
    aggregator = build_aggregator(
        asked.name, encoder.dim, normalize=asked.normalize, **asked.options
    )
    if config.training.level == "items" and any(p.requires_grad for p in aggregator.parameters()):
        raise InputError(
            f"The aggregator {asked.name} has weights to learn, which a loss on items leaves as "
            f"they are. Ask for --level collections or both."
        )
    return aggregator


def head_above(dim: int, config: Config) -> nn.Module:
    """Build the projection that a contrastive loss sees."""
    return build_mlp(dim, config.head.hidden_dim, config.head.dim)


def prior_of(config: Config) -> LabelledPrior | None:
    """Build what estimates the prior, where that is asked for."""
    if config.loss.tau_plus != "auto":
        return None
    return LabelledPrior(seed=config.training.seed)


METHODS: dict[str, Callable[[Config, ItemFormat], Method]] = {
    "supervised": build_supervised,
    "contrastive": build_contrastive,
    "difficulty_weighted": build_difficulty,
}


def choose(kind: str, name: str, known: dict[str, T]) -> T:
    """Look a name up, or say which names there are."""
    if name not in known:
        names = sorted(known)
        raise InputError(
            f"Unknown {kind} '{name}'.{nearest(name, names)} Known: {', '.join(names)}."
        )
    return known[name]
