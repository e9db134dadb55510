"""Which classes a model has seen, so that none of them is ever called held out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from setrep.config import Config
from setrep.data.dataset import ItemDataset
from setrep.errors import InputError


@dataclass(frozen=True)
class TrainedOn:
    """Name the data set and the labels of a training split; `model.json` keeps it.

    A label that is a part of another (Omniglot's `Greek/character01` of `Greek`) shares its class.
    """

    dataset: str
    labels: tuple[str, ...]

    @classmethod
    def read(cls, config: Config, dataset: ItemDataset) -> Self:
        """Take the labels of the training split, those of quarter turns as what was turned."""
        names = {dataset.label_names[label] for label in dataset.labels.tolist()}
        if config.augmentation.rotated_classes and dataset.item_format.kind == "image":
            names = {name.rpartition("@")[0] for name in names}
        return cls(dataset.name, tuple(sorted(names)))

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Take what `model.json` keeps.

        Raises:
            InputError: somebody changed it.
        """
        is_whole = isinstance(value, dict) and value.keys() == {"dataset", "labels"}
        if not is_whole or not isinstance(value["labels"], list | tuple):
            raise InputError(
                "The metadata 'trained_on' of model.json is not what setrep wrote: "
                "it needs a data set and a list of labels. Train again, or restore the file."
            )
        return cls(str(value["dataset"]), tuple(str(label) for label in value["labels"]))

    def refuse_shared(self, held_out: ItemDataset) -> None:
        """Refuse to call classes held out that were trained on.

        Raises:
            InputError: a label of the split, or a part or the whole of one, was trained on.
        """
        if held_out.name != self.dataset:
            return
        trained, tested = (
            set(self.labels),
            {held_out.label_names[label] for label in held_out.labels.tolist()},
        )
        shared = (trained & with_wholes(tested)) | (tested & with_wholes(trained))
        if shared:
            raise InputError(
                f"The {held_out.split} split holds {len(shared)} labels that are trained on, such "
                f"as '{min(shared)}', but it is to hold classes never trained on. Split by label, "
                f"and evaluate with the run's own subset, split and groups."
            )


def with_wholes(names: Iterable[str]) -> set[str]:
    """Add to each `whole/part` its whole."""
    parts = [name.split("/") for name in names]
    return {"/".join(path[:end]) for path in parts for end in range(1, len(path) + 1)}
