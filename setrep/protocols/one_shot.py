"""One-shot classification: which of a few training images is of the same class?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from setrep.collection import CollectionBatch
from setrep.data.dataset import ItemFormat
from setrep.data.images import read_image
from setrep.data.one_shot import OneShotRun, OneShotTask
from setrep.errors import InputError
from setrep.functional import pairwise_distance
from setrep.protocols.results import OneShotResult
from setrep.set_distances import modified_hausdorff, pairwise

OMNIGLOT = ItemFormat("image", channels=1, size=105, is_inverted=True)  # as the drawings are stored
Embed = Callable[[UInt8[Tensor, "item channel height width"]], Float[Tensor, "item dim"]]


def evaluate_one_shot(task: OneShotTask, embed: Embed, item_format: ItemFormat) -> OneShotResult:
    """Answer with the training image whose embedding is nearest in Euclidean distance.

    The Omniglot one-shot task of Lake et al. 2015. `embed` gets each run's images in one call and
    is used as it is: a module must be in evaluation mode. Of equally near images the first counts.
    """

    def distances(run: OneShotRun) -> Tensor:
        images = [read_image(image, item_format) for image in [*run.test, *run.training]]
        with torch.no_grad():
            embeddings = embed(torch.from_numpy(np.stack(images))).float().cpu()
        if not bool(embeddings.isfinite().all()):
            raise InputError(
                f"The embeddings of one-shot run {run.name} are not all finite. "
                f"Check the model's weights."
            )
        return pairwise_distance(embeddings[: len(run.test)], embeddings[len(run.test) :])

    return _errors(task, distances)


def evaluate_one_shot_hausdorff(task: OneShotTask) -> OneShotResult:
    """Answer with the training image nearest in modified Hausdorff distance of ink pixels.

    The baseline published with the task: every image is the set of the (row, column) coordinates
    of its dark pixels, moved to have its centre at the origin.
    """

    def distances(run: OneShotRun) -> Tensor:
        test, training = (
            CollectionBatch.from_list([ink_points(image) for image in images])
            for images in (run.test, run.training)
        )
        return pairwise(modified_hausdorff, test, training)

    return _errors(task, distances)


def ink_points(image: bytes) -> Float[Tensor, "point 2"]:
    """Return the centred coordinates of the dark pixels of an encoded image."""
    is_ink = read_image(image, OMNIGLOT)[0] > 127
    points = torch.from_numpy(np.argwhere(is_ink)).double()
    if not len(points):
        raise InputError("A one-shot image has no dark pixel; ink must be dark on white.")
    return points - points.mean(dim=0)


def _errors(task: OneShotTask, distances: Callable[[OneShotRun], Tensor]) -> OneShotResult:
    """Count the runs' wrong answers; `argmin` of numpy takes the first of equal distances."""
    errors = tuple(
        float(np.mean(distances(run).numpy().argmin(axis=1) != run.answers)) for run in task.runs
    )
    if not errors:
        raise InputError("The one-shot task has no runs. Give a zip or directory with runNN/.")
    return OneShotResult(len(errors), float(np.mean(errors)), errors)
