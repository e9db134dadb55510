"""A complete run: its sections, the defaults of each data set, and how they are resolved."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from setrep.config_files import cut, parse_override, read_yaml, shown
from setrep.config_sections import (
    AggregatorConfig,
    AugmentationConfig,
    DataConfig,
    EncoderConfig,
    EpisodeConfig,
    EvaluationConfig,
    HeadConfig,
    LossConfig,
    MinerConfig,
    OptimizerConfig,
    PathText,
    Section,
    TrainingConfig,
    ViewsConfig,
)
from setrep.errors import InputError, nearest

__all__ = [
    "AggregatorConfig",
    "AugmentationConfig",
    "Config",
    "DataConfig",
    "EncoderConfig",
    "EpisodeConfig",
    "ViewsConfig",
    "parse_override",
    "read_yaml",
    "resolve",
    "to_yaml",
]


class Config(Section):
    """A complete run."""

    data: DataConfig = DataConfig()
    episode: EpisodeConfig = EpisodeConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    views: ViewsConfig = ViewsConfig()
    encoder: EncoderConfig = EncoderConfig()
    head: HeadConfig = HeadConfig()
    aggregator: AggregatorConfig = AggregatorConfig()
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
SIMCLR = {
    "crop_scale": 0.08,
    "flip": 0.5,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
    "grey": 0.2,
    "blur": 0.5,
}
# Which method learns from a loss that is named without one.
METHOD_OF_LOSS = {
    **dict.fromkeys(("triplet", "supcon"), "supervised"),
    **dict.fromkeys(
        (
            "nt_xent",
            "n_pair",
            "debiased_negatives",
            "hard_negatives",
            "debiased_positives",
            "debiased_both",
        ),
        "contrastive",
    ),
    "difficulty_weighted": "difficulty_weighted",
}
# Of Chuang et al. 2020 and those who compare with them: Adam, no schedule, features below a head.
OF_VIEWS: dict[str, Any] = {
    "encoder": {"projection": "none"},
    "optimizer": {
        "name": "adam",
        "schedule": "constant",
        "weight_decay": 1e-6,
        "warmup_steps": 0,
        "clip_norm": None,
    },
    "evaluation": {"knn_k": 200, "knn_temperature": 0.5},
}
METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    "supervised": {"loss": {"name": "triplet"}},
    "contrastive": OF_VIEWS | {"loss": {"name": "nt_xent", "temperature": 0.5}},
    "difficulty_weighted": OF_VIEWS | {"loss": {"name": "difficulty_weighted", "temperature": 0.5}},
}
NATURAL_IMAGES: dict[str, Any] = {
    "augmentation": SIMCLR,
    "loss": {"name": "nt_xent"},
    "training": {"method": "contrastive", "max_steps": 2000},
}
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
    "cifar10": NATURAL_IMAGES,
    "cifar100": NATURAL_IMAGES,
    "tinyimagenet": NATURAL_IMAGES,
    "stl10": NATURAL_IMAGES,
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
            if isinstance(layer.get("aggregator"), str):  # by its name alone
                layer = layer | {"aggregator": {"name": layer["aggregator"]}}
            asked = merge(asked, layer)
        section = asked.get("data")
        name = section.get("dataset", "digits") if isinstance(section, dict) else "digits"
        name = name if isinstance(name, str) else ""
        values = DATASET_DEFAULTS.get(name, {})
        if has_cuda:
            values = merge(values, DATASET_DEFAULTS_CUDA.get(name, {}))
        return Config.model_validate(merge(with_method(values, asked), asked))
    except ValidationError as error:
        raise InputError(explain(error)) from None
    except RecursionError:
        raise InputError("The settings are nested too deeply, or hold themselves.") from None


def with_method(defaults: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Add the defaults of the method: that asked for, else that of the loss asked for.

    Those of the data set's own method yield to the data set's; another method's win over them.
    """

    def find(settings: dict[str, Any], section: str, key: str) -> str | None:
        found = settings.get(section)
        value = found.get(key) if isinstance(found, dict) else None
        return value if isinstance(value, str) else None

    own = find(defaults, "training", "method") or "supervised"
    of_loss = METHOD_OF_LOSS.get(find(asked, "loss", "name") or "")
    method = find(asked, "training", "method") or of_loss or own
    of_method = merge(METHOD_DEFAULTS.get(method, {}), {"training": {"method": method}})
    loss = asked.get("loss")
    temperature = loss.get("temperature") if isinstance(loss, dict) else None
    if method != "supervised" and temperature is not None:  # what the published numbers vote with
        of_method = merge(of_method, {"evaluation": {"knn_temperature": temperature}})
    if method == own:
        return merge(of_method, defaults)
    if find(defaults, "encoder", "name") == "identity":  # it has nothing that a head could teach
        defaults = merge(defaults, {"encoder": {"name": "mlp"}})
    return merge(defaults, of_method)


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
