"""Every setting of a run, with its default, its limits and its check."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from setrep.config_files import cut, parse_override, read_yaml, shown
from setrep.errors import InputError, nearest

__all__ = ["Config", "parse_override", "read_yaml", "resolve", "to_yaml"]


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("write a number, not true or false.")
    return value


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
Seed = Annotated[int, Number, Field(ge=0, lt=2**63)]
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
    image_size: ImageSize | None = None  # none: as the data set has it
    validation_groups: tuple[str, ...] = ()  # alphabets or classes held out of training, by name
    num_validation_groups: Whole = 0  # or how many, chosen by split_seed
    split_seed: Seed = 0
    on_bad_image: Literal["fail", "skip"] = "fail"
    on_small_class: Literal["refuse", "drop"] = "refuse"


class EpisodeConfig(Section):
    """How many disjoint collections an episode has."""

    classes_per_episode: Annotated[Count, Field(ge=2)] = 8
    collections_per_class: Count = 2
    items_per_collection: Count = 4

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


class EncoderConfig(Section):
    """What turns an item into an embedding."""

    name: str = "convnet"
    projection: Literal["none", "linear", "mlp"] = "linear"
    projection_dim: Annotated[Count, Field(le=2**16)] = 128
    normalize: bool = True  # L2-normalise the embedding


class LossConfig(Section):
    """The loss and its knobs; a loss reads those it knows."""

    name: str = "triplet"
    margin: Annotated[NonNegative, AtMostAMillion] = 0.2
    distance: Literal["euclidean", "squared"] = "euclidean"
    soft: bool = False  # log(1 + exp(.)) in place of the hinge; the margin is then not used
    reduction: Literal["mean", "mean_nonzero", "sum"] = "mean"
    temperature: Annotated[Positive, AtMostAMillion] = 0.1


class MinerConfig(Section):
    """Which triplets are learned from."""

    name: str = "batch_hard"
    positives: Literal["any", "same_collection", "cross_collection"] = "any"
    start_step: Whole = 0  # before it every triplet with a positive of its own collection counts


class OptimizerConfig(Section):
    """AdamW with warm-up and cosine decay."""

    lr: Annotated[Positive, Field(le=10)] = 1e-3
    weight_decay: Annotated[NonNegative, Field(le=100)] = 1e-2
    warmup_steps: Whole = 50
    clip_norm: Annotated[Positive, AtMostAMillion] | None = 5.0
    ema_decay: Share = 0.0  # 0: no averaged weights


class TrainingConfig(Section):
    """How long, on what, and how often something is written."""

    method: str = "supervised"
    level: Literal["items"] = "items"
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
    sizes: Sizes = (1, 2, 5, 10)
    knn_k: Count = 20
    knn_temperature: Annotated[Positive, AtMostAMillion] = 0.1
    num_bootstrap: Annotated[Count, Field(le=10**6)] = 1000
    baselines: bool = True
    one_shot: PathText | None = None  # zip or directory of the Omniglot one-shot task


class Config(Section):
    """A complete run."""

    data: DataConfig = DataConfig()
    episode: EpisodeConfig = EpisodeConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    encoder: EncoderConfig = EncoderConfig()
    aggregator: str = "centroid"
    loss: LossConfig = LossConfig()
    miner: MinerConfig = MinerConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    output_dir: PathText | None = None

    @model_validator(mode="after")
    def _one_batch_of_a_miner_has_positives(self) -> Config:
        episode = self.episode
        if self.miner.positives == "cross_collection" and episode.collections_per_class < 2:
            raise ValueError(
                "miner.positives='cross_collection' needs episode.collections_per_class of at "
                f"least 2, not {episode.collections_per_class}."
            )
        if self.miner.positives == "same_collection" and episode.items_per_collection < 2:
            raise ValueError(
                "miner.positives='same_collection' needs episode.items_per_collection of at "
                f"least 2, not {episode.items_per_collection}."
            )
        if self.miner.start_step and episode.items_per_collection < 2:
            raise ValueError(
                "miner.start_step needs episode.items_per_collection of at least 2, for its first "
                f"triplets are of own collections, not {episode.items_per_collection}."
            )
        if episode.collections_per_class * episode.items_per_collection < 2:
            raise ValueError("An episode needs at least two items of a class.")
        return self


EPISODE_OF_128 = {"classes_per_episode": 32, "collections_per_class": 2, "items_per_collection": 2}
SMALL_TURNS = {"rotated_classes": True, "degrees": 10, "scale": 0.1, "shear": 5, "translate": 0.1}
GLYPH_TURNS = {"rotated_classes": True, "degrees": 15, "scale": 0.2, "shear": 15, "translate": 0.1}
# What a bare `setrep train --dataset NAME` runs; a key that is not here keeps its model's default.
DATASET_DEFAULTS: dict[str, dict[str, Any]] = {
    # Few and tiny images: a linear map of the pixels generalises, a deep network overfits.
    "digits": {
        "episode": EPISODE_OF_128 | {"classes_per_episode": 16, "items_per_collection": 4},
        "augmentation": SMALL_TURNS,
        "encoder": {"name": "identity"},
        "loss": {"name": "supcon"},
        "training": {"max_steps": 400},
    },
    "omniglot": {
        "data": {"image_size": 32},
        "episode": EPISODE_OF_128,
        "augmentation": GLYPH_TURNS | {"elastic": 0.05},
        "encoder": {"normalize": False},
        "loss": {"soft": True},
        "optimizer": {"lr": 2e-3},
        "training": {"max_steps": 4000},
    },
    "vectors": {"encoder": {"name": "mlp"}},
}
# Added on a machine with a GPU.
DATASET_DEFAULTS_CUDA: dict[str, dict[str, Any]] = {
    "omniglot": {"data": {"image_size": 64}, "encoder": {"name": "efficientnet_b2"}},
}


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the entries of `change` laid over it, section by section."""
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def resolve(*layers: dict[str, Any], has_cuda: bool = False) -> Config:
    """Lay settings over the defaults of the data set they name; later layers win.

    Raises:
        InputError: a key is unknown, a value is out of its limits, or two contradict each other.
    """
    try:
        asked: dict[str, Any] = {}
        for layer in layers:
            asked = merge(asked, layer)
        section = asked.get("data")
        name = section.get("dataset", "digits") if isinstance(section, dict) else "digits"
        name = name if isinstance(name, str) else ""
        values = DATASET_DEFAULTS.get(name, {})
        if has_cuda:
            values = merge(values, DATASET_DEFAULTS_CUDA.get(name, {}))
        return Config.model_validate(merge(values, asked))
    except ValidationError as error:
        raise InputError(explain(error)) from None
    except RecursionError:
        raise InputError("The settings are nested too deeply, or hold themselves.") from None


def explain(error: ValidationError) -> str:
    """Put the first problem of a config in one line."""
    problem = error.errors()[0]
    where = [str(part) for part in problem["loc"]]
    key = cut(".".join(where))
    if problem["type"] == "extra_forbidden":
        known = known_keys()
        return f"Unknown setting '{key}'.{nearest(key, known)} See `setrep train --help`."
    if problem["type"] == "value_error":
        message = str(problem["ctx"]["error"])
        return f"Setting '{key}' is {shown(problem['input'])}: {message}" if key else message
    message = f"{problem['msg'][0].lower()}{problem['msg'][1:]}"
    return f"Setting '{key}' is {shown(problem['input'])}: {message}."


def known_keys() -> list[str]:
    """Return every setting by its dotted name."""
    keys = []
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            keys += [f"{name}.{inner}" for inner in section.model_fields]
        keys.append(name)
    return keys


def to_yaml(config: Config) -> str:
    """Write a complete config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
