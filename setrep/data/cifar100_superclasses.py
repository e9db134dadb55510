"""Which superclass each class of CIFAR-100 belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from setrep.errors import InputError

FILE = "cifar100_coarse_labels.json"  # {"coarse_of_fine": {class: superclass}}
# The table on the data set's page, https://www.cs.toronto.edu/~kriz/cifar.html.
SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}


def superclasses(names: Sequence[str], data_root: Path | None) -> Mapping[str, str]:
    """Return the superclass of each named class, by the data root's own table if it has one.

    Raises:
        InputError: that table is damaged, or a class is in none.
    """
    table = {name: whole for whole, parts in SUPERCLASSES.items() for name in parts.split()}
    path = data_root / FILE if data_root else None
    if path and path.exists():
        table = _read_table(path)
    for name in names:
        if name not in table:
            raise InputError(
                f"The class '{name}' has no superclass in {path or 'CIFAR-100'}. Write it there, "
                f"or use label_level=fine."
            )
    return {name: table[name] for name in names}


def _read_table(path: Path) -> dict[str, str]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))["coarse_of_fine"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is no table of superclasses ({type(error).__name__}); expected "
            f'{{"coarse_of_fine": {{class: superclass}}}}. Mend or remove it.'
        ) from error
    if not isinstance(table, dict) or not all(isinstance(whole, str) for whole in table.values()):
        raise InputError(f"{path} names superclasses that are no strings. Mend or remove it.")
    return table
