"""From a config to data, samplers, methods and hardware."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Int64
from torch import Tensor

from setrep import distributed
from setrep.aggregators import AGGREGATORS
from setrep.config import Config, DataConfig
from setrep.data.augmentation import add_rotated_classes
from setrep.data.dataset import ItemDataset, ItemFormat
from setrep.data.item_sampler import ItemSampler
from setrep.data.registry import load_dataset
from setrep.data.sampler import EpisodeSampler
from setrep.data.views import Partners
from setrep.encoders import ENCODERS, ItemEncoder
from setrep.errors import InputError
from setrep.methods.method import Draws, Method
from setrep.methods.prior import LabelledPrior
from setrep.set_encoder import SetEncoder
from setrep.training.methods import CONTRASTIVE_LOSSES, LOSSES, METHODS, MINERS, choose


class Sampler(Protocol):
    """What the loop asks of a sampler of episodes or of single items."""

    def __len__(self) -> int: ...

    def offsets(self, epoch: int, position: int) -> Int64[Tensor, " collection+1"] | None:
        """Return the offsets of the collections in the batch of any step, if it has any."""

    def draw(self, epoch: int, position: int) -> Int64[Tensor, " item"]:
        """Return the items of any step."""


def names(kind: str) -> list[str]:
    """Return what can be named: encoders, aggregators, losses, miners or methods."""
    known = {
        "encoders": (*ENCODERS, "timm:<name>"),
        "aggregators": AGGREGATORS,
        "losses": (*LOSSES, *CONTRASTIVE_LOSSES, "difficulty_weighted"),
        "miners": MINERS,
        "methods": METHODS,
    }
    return list(known[kind])


def load_split(data: DataConfig, split: str) -> ItemDataset:
    """Read one split of the configured data set."""
    usual = type(data).model_fields["partition_size"].default
    if data.collection_level != "partition" and data.partition_size != usual:
        raise InputError(
            f"data.partition_size={data.partition_size} is for --collection-level partition, but "
            f"collections are {data.collection_level}. Ask for it, or leave the size out."
        )
    return load_dataset(
        data.dataset,
        split=split,
        data_root=data.data_root,
        subset=data.subset,
        label_level=data.label_level,
        collection_level=data.collection_level,
        image_size=data.image_size,
        validation_groups=data.validation_groups,
        num_validation_groups=data.num_validation_groups,
        num_validation_items=data.num_validation_items,
        num_train_items=data.num_train_items,
        split_seed=data.split_seed,
        on_bad_image=data.on_bad_image,
        partition_size=data.partition_size,
    )


def fit_episode(config: Config, dataset: ItemDataset) -> Config:
    """Take all classes for an episode where fewer than the default are there to train on."""
    found = len(set(dataset.labels.tolist()))
    asked = config.episode
    if (
        "classes_per_episode" in asked.model_fields_set
        or not 2 <= found < asked.classes_per_episode
    ):
        return config
    fitted = asked.model_copy(update={"classes_per_episode": found})
    return config.model_copy(update={"episode": fitted})


def build_method(config: Config, item_format: ItemFormat) -> Method:
    """Build the configured method with weights drawn from the seed."""
    build = choose("method", config.training.method, METHODS)
    with torch.random.fork_rng():
        torch.manual_seed(config.training.seed)
        return build(config, item_format)


def build_sampler(config: Config, dataset: ItemDataset, draws: Draws = "episodes") -> Sampler:
    """Build the sampler of this rank; an epoch passes over about as many items as there are."""
    episode = config.episode
    if draws == "items":
        refuse_of_episodes(config)
        return ItemSampler(
            len(dataset),
            batch_size=config.training.batch_size,
            seed=config.training.seed,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
        )
    labels, keys, names = dataset.labels, dataset.keys, dataset.label_names
    if draws == "subcollections":  # the label of a collection is not known, but what is in it is
        if keys is None:
            raise InputError(
                f"Without labels, collections are learned from natural ones, but those of "
                f"{dataset.name} are sampled. Choose another data.collection_level, for example "
                f"partition."
            )
        needed = episode.collections_per_class * episode.items_per_collection
        if dataset.collection_level == "partition" and config.data.partition_size < needed:
            raise InputError(
                f"Collections of data.partition_size={config.data.partition_size} items cannot be "
                f"parted into episode.collections_per_class={episode.collections_per_class} parts "
                f"of episode.items_per_collection={episode.items_per_collection}. Ask for "
                f"{needed} or more, or for smaller parts."
            )
        labels, keys, names = keys, None, dataset.key_names
    return EpisodeSampler(
        labels,
        keys,
        classes_per_episode=episode.classes_per_episode,
        collections_per_class=episode.collections_per_class,
        items_per_collection=episode.items_per_collection,
        min_items_per_collection=episode.min_items_per_collection,
        contamination=episode.contamination,
        episodes_per_epoch=max(1, len(dataset) // (episode.num_items * distributed.world_size())),
        seed=config.training.seed,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        on_small_class=config.data.on_small_class,
        label_names=names,
    )


def refuse_of_episodes(config: Config) -> None:
    """Refuse settings of episodes where none are drawn."""
    for option in ("min_items_per_collection", "contamination"):
        asked = getattr(config.episode, option)
        if asked != type(config.episode).model_fields[option].default:
            raise InputError(
                f"episode.{option}={asked} is for episodes, but --loss {config.loss.name} at "
                f"--level {config.training.level} draws items one by one. Ask for --level "
                f"collections or both, or leave it out."
            )


def check_views(method: Method, dataset: ItemDataset, config: Config) -> None:
    """Refuse, before anything is written, views that cannot be made or are all alike.

    Raises:
        InputError: the data set cannot give them.
    """
    if method.num_views < 2:
        return
    Partners(dataset, config.views)
    is_plain = dataset.item_format.kind == "vector" and config.augmentation.noise == 0
    if is_plain and config.views.positives == "augmentation":
        raise InputError(
            f"The views of a vector of {dataset.name} would all be alike. Set augmentation.noise, "
            f"or take neighbours or collections for views (views.positives)."
        )


def check_prior(dataset: ItemDataset, config: Config) -> None:
    """Refuse, before anything is written, labels that tell no prior.

    Raises:
        InputError: no two of the items share a label, or all do.
    """
    if config.loss.tau_plus == "auto":
        LabelledPrior(seed=config.training.seed).prepare(torch.from_numpy(dataset.labels))


def training_dataset(config: Config) -> ItemDataset:
    """Read the training split, with rotated classes where they are asked for."""
    dataset = load_split(config.data, "train")
    if config.augmentation.rotated_classes and dataset.item_format.kind == "image":
        return add_rotated_classes(dataset)
    return dataset


def set_encoder_of(
    method: Method, config: Config, item_format: ItemFormat, encoder: ItemEncoder | None = None
) -> SetEncoder:
    """Hand over what a method has learned, or another encoder of its."""
    return SetEncoder(
        encoder or method.encoder,
        method.aggregator,
        item_format=item_format,
        encoder_config=config.encoder,
        aggregator_config=config.aggregator,
    )


@dataclass(frozen=True)
class Hardware:
    """Where a run computes, and how."""

    device: torch.device
    precision: torch.dtype


def choose_hardware(config: Config) -> Hardware:
    """Resolve `auto`: a GPU if there is one; bfloat16 where it is measured to be faster.

    On CPUs with bfloat16 instructions convolutions of residual networks run two to three times
    faster, and EfficientNet's depthwise ones slower (benchmarks/precision.py).
    """
    asked = config.training.device
    if asked == "cuda" and not torch.cuda.is_available():
        raise InputError("Asked for --device cuda, but torch finds no GPU. Use --device cpu.")
    device = torch.device("cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    precision = config.training.precision
    if precision == "auto":
        is_residual = config.encoder.name.startswith(("convnet", "resnet"))
        has_instructions = device.type == "cuda" or cpu_has_bfloat16()
        fast = has_instructions and (is_residual or device.type == "cuda")
        precision = "bfloat16" if fast else "float32"
    return Hardware(device, torch.bfloat16 if precision == "bfloat16" else torch.float32)


def cpu_has_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16 natively; torch offers no public question."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported and supported())
