"""The sections of a run's settings, each key with its default, its limits and its check."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("write a number, not true or false.")
    return value


def _prior_or_auto(value: Any) -> Any:
    if value == "auto":
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < 1:
        raise ValueError("write a probability from 0 to below 1, or auto.")
    return float(value)


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("no path can have a NUL character.")
    return text


def _distinct(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(sizes)) < len(sizes):
        raise ValueError("name each size once.")
    return sizes


Number = BeforeValidator(_no_truth_value)  # pydantic takes true for 1
Count = Annotated[int, Number, Field(ge=1, le=10**9)]
Whole = Annotated[int, Number, Field(ge=0, le=10**9)]
NonNegative = Annotated[float, Number, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Number, Field(gt=0, allow_inf_nan=False)]
ImageSize = Annotated[int, Number, Field(ge=8, le=1024)]
Share = Annotated[float, Number, Field(ge=0, lt=1)]
Probability = Annotated[float, Number, Field(ge=0, le=1)]
Seed = Annotated[int, Number, Field(ge=0, lt=2**63)]
PriorOrAuto = Annotated[float | str, BeforeValidator(_prior_or_auto)]
Sizes = Annotated[tuple[Count, ...], Field(min_length=1), AfterValidator(_distinct)]
PathText = Annotated[str, AfterValidator(_no_nul)]
AtMostAMillion = Field(le=1e6)


class Section(BaseModel):
    """Refuse unknown keys; never change after construction."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Section):
    """Which items are read, and what is a label and a collection of them."""

    dataset: str = "digits"
    data_root: PathText | None = None
    subset: str = "full"
    label_level: str | None = None  # none: the data set's own default
    collection_level: str = "sampled"
    partition_size: Count = 10  # items of a collection, where collection_level is partition
    image_size: ImageSize | None = None  # none: as the data set has it
    validation_groups: tuple[str, ...] = ()  # alphabets or classes held out of training, by name
    num_validation_groups: Whole = 0  # or how many, chosen by split_seed
    num_validation_items: Whole = 0  # or images of each class, where train and test share classes
    num_train_items: Count | None = None  # there: train on so many of all classes; none: on all
    split_seed: Seed = 0
    on_bad_image: Literal["fail", "skip"] = "fail"
    on_small_class: Literal["refuse", "drop"] = "refuse"


class EpisodeConfig(Section):
    """How many disjoint collections an episode has."""

    classes_per_episode: Annotated[Count, Field(ge=2)] = 8
    collections_per_class: Count = 2
    items_per_collection: Count = 4
    min_items_per_collection: Count | None = None  # sizes vary from there; none: all of one size
    contamination: Probability = 0.0  # that an item is replaced by one of another class

    @property
    def num_items(self) -> int:
        """Items of one episode."""
        return self.classes_per_episode * self.collections_per_class * self.items_per_collection


class AugmentationConfig(Section):
    """Random changes of images, drawn for each item; zero leaves a change out."""

    rotated_classes: bool = False  # quarter turns become classes of their own
    degrees: Annotated[NonNegative, Field(le=180)] = 0.0
    scale: Share = 0.0
    shear: Annotated[NonNegative, Field(le=40)] = 0.0  # degrees; 45 both ways leaves a line
    translate: Share = 0.0  # share of the side
    elastic: Annotated[NonNegative, Field(le=1)] = 0.0  # largest displacement, share of the side
    erase: Share = 0.0  # probability of one erased rectangle
    crop_scale: Annotated[Positive, Field(le=1)] = 1.0  # least share of the area that a crop keeps
    flip: Probability = 0.0
    brightness: Annotated[NonNegative, Field(le=1)] = 0.0  # and the next three: colour jitter
    contrast: Annotated[NonNegative, Field(le=1)] = 0.0
    saturation: Annotated[NonNegative, Field(le=1)] = 0.0
    hue: Annotated[NonNegative, Field(le=0.5)] = 0.0
    jitter: Probability = 0.8  # probability of colour jitter, where it has any strength
    grey: Probability = 0.0
    blur: Probability = 0.0
    noise: Annotated[NonNegative, AtMostAMillion] = 0.0  # deviation, added to vectors


class ViewsConfig(Section):
    """Which images a contrastive loss takes for views of one item."""

    num_views: Annotated[Count, Field(ge=2, le=64)] = 2
    positives: Literal["augmentation", "neighbour", "collection"] = "augmentation"
    false_positive_rate: Probability = 0.0  # of second views taken from an image of another class


class EncoderConfig(Section):
    """What turns an item into an embedding."""

    name: str = "convnet"
    projection: Literal["none", "linear", "mlp"] = "linear"
    projection_dim: Annotated[Count, Field(le=2**16)] = 128
    normalize: bool = True  # L2-normalise the embedding


class AggregatorConfig(Section):
    """What turns the embeddings of a collection's items into one, and the options it has.

    An option that is none is the aggregator's own default; one that it does not have is refused.
    """

    name: str = "centroid"
    normalize: bool = False  # L2-normalise the collection's embedding
    dim_out: Annotated[Count, Field(le=2**16)] | None = None
    hidden_dim: Annotated[Count, Field(le=2**16)] | None = None
    gated: bool | None = None
    num_heads: Annotated[Count, Field(le=64)] | None = None
    num_seeds: Annotated[Count, Field(le=64)] | None = None
    num_inducing: Annotated[Whole, Field(le=1024)] | None = None
    num_blocks: Annotated[Count, Field(le=16)] | None = None
    num_clusters: Annotated[Count, Field(le=1024)] | None = None
    num_ghosts: Annotated[Whole, Field(le=1024)] | None = None
    num_slices: Annotated[Count, Field(le=2**16)] | None = None
    num_quantiles: Annotated[Count, Field(le=1024)] | None = None
    rank: Annotated[Count, Field(le=2**10)] | None = None
    power: Positive | None = None
    trim: Annotated[NonNegative, Field(lt=0.5)] | None = None
    num_iterations: Annotated[Count, Field(le=1000)] | None = None
    smoothing: Annotated[Positive, Field(le=1)] | None = None
    quantiles: tuple[Probability, ...] | None = None
    interpolation: Literal["averaged", "linear"] | None = None
    parts: tuple[str, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """Options of the aggregator that were asked for."""
        asked = self.model_dump(exclude={"name", "normalize"})
        return {name: value for name, value in asked.items() if value is not None}


class HeadConfig(Section):
    """The projection that a contrastive loss sees; what is kept is the encoder below it."""

    hidden_dim: Annotated[Count, Field(le=2**16)] = 512
    dim: Annotated[Count, Field(le=2**16)] = 128


class LossConfig(Section):
    """The loss and its knobs; a loss reads those it knows."""

    name: str = "triplet"
    margin: Annotated[NonNegative, AtMostAMillion] = 0.2
    distance: Literal["euclidean", "squared"] = "euclidean"
    soft: bool = False  # log(1 + exp(.)) in place of the hinge; the margin is then not used
    reduction: Literal["mean", "mean_nonzero", "sum"] = "mean"
    temperature: Annotated[Positive, AtMostAMillion] = 0.1
    tau_plus: PriorOrAuto = 0.1  # prior probability that two items share a class
    beta: Annotated[NonNegative, Field(le=100)] = 1.0  # concentration on hard negatives
    estimator: Literal["mean", "sum", "consistent"] = "mean"  # of debiased positives
    views: Literal["grouping", "combination"] = "grouping"  # what more than two views are for
    drop_false_negatives: Literal["none", "exclude", "published"] = "none"  # asks for labels
    l2_weight: Annotated[NonNegative, AtMostAMillion] = 0.0  # of n_pair, on squared norms
    positives_weight: Probability = 0.5  # of debiased positives beside debiased negatives


class MinerConfig(Section):
    """Which triplets are learned from."""

    name: str = "batch_hard"
    positives: Literal["any", "same_collection", "cross_collection"] = "any"
    start_step: Whole = 0  # before it every triplet with a positive of its own collection counts


class OptimizerConfig(Section):
    """AdamW (or Adam, as many papers have it) with warm-up and cosine decay."""

    name: Literal["adamw", "adam"] = "adamw"
    schedule: Literal["cosine", "constant"] = "cosine"  # after the warm-up
    lr: Annotated[Positive, Field(le=10)] = 1e-3
    weight_decay: Annotated[NonNegative, Field(le=100)] = 1e-2
    warmup_steps: Whole = 50
    biased_lr_scale: Annotated[Positive, AtMostAMillion] = 10.0  # of a method's biased encoder
    clip_norm: Annotated[Positive, AtMostAMillion] | None = 5.0
    ema_decay: Share = 0.0  # 0: no averaged weights


class TrainingConfig(Section):
    """How long, on what, and how often something is written."""

    method: str = "supervised"
    level: Literal["items", "collections", "both"] = "items"  # whose embeddings the loss compares
    collections_weight: Probability = 0.5  # of the loss on collections, where it is on both
    batch_size: Annotated[Count, Field(ge=2)] = 128  # items; methods that draw no episodes
    max_steps: Count = 600
    max_minutes: Annotated[Positive, AtMostAMillion] | None = None
    log_every: Count = 10
    checkpoint_every: Count = 100
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: Seed = 0


class EvaluationConfig(Section):
    """What is measured at the end."""

    split: Literal["validation", "test"] = "test"
    protocol: Literal["auto", "held_out_classes", "train_bank"] = "auto"
    every_epochs: Whole = 0  # weighted kNN while training; 0: not before the end
    linear_probe: bool = False
    sizes: Sizes = (1, 2, 5, 10)
    knn_k: Count = 20
    knn_temperature: Annotated[Positive, AtMostAMillion] = 0.1
    num_bootstrap: Annotated[Count, Field(le=10**6)] = 1000
    baselines: bool = True
    one_shot: PathText | None = None  # zip or directory of the Omniglot one-shot task
