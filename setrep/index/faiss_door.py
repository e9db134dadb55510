"""The one place that imports FAISS."""

from __future__ import annotations

import importlib
import logging
import sys
from functools import cache
from types import ModuleType

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from setrep.errors import InputError

logger = logging.getLogger(__name__)
LARGEST_GPU_K = 2048  # FAISS selects at most so many on a GPU


def load_faiss(*, is_required: bool) -> ModuleType | None:
    """Return FAISS, or none where it cannot be used; the reason is logged once.

    Torch is imported first everywhere, since the order decides who shares OpenMP with whom. On
    macOS the two bring an OpenMP each and crash, so FAISS is taken there only when required.

    Raises:
        InputError: FAISS is required and cannot be used.
    """
    if sys.platform == "darwin" and not is_required:
        return None
    faiss, problem = _import_faiss()
    if faiss is None and is_required:
        raise InputError(f"backend='faiss' was asked for, but {problem}")
    return faiss


@cache
def _import_faiss() -> tuple[ModuleType | None, str]:
    """Import FAISS once; on failure return one line that says why, having logged it."""
    try:
        faiss = importlib.import_module("faiss")
        if faiss.__file__ is not None:
            return faiss, ""
        found = "its directory is empty (uninstalling faiss-gpu or faiss-cpu empties it for both)"
    except ModuleNotFoundError as error:
        if error.name == "faiss":
            problem = "FAISS is not installed; pip install faiss-cpu."
            logger.info("%s Searching with torch instead, with the same result.", problem)
            return None, problem
        found = str(error)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        found = str(error)
    problem = (
        f"FAISS is broken: {' '.join(found.split())}. Reinstall one of the two packages: "
        f"pip install --force-reinstall --no-deps faiss-cpu."
    )
    logger.warning("%s Searching with torch instead, with the same result.", problem)
    return None, problem


def faiss_knn(
    faiss: ModuleType,
    queries: Float[Tensor, "query dim"],
    bank: Float[Tensor, "item dim"],
    k: int,
    metric: str,
) -> tuple[Float[Tensor, "query k"], Int64[Tensor, "query k"]]:
    """Search float32 tensors, on a GPU where FAISS has one; larger similarity is nearer."""
    code = faiss.METRIC_INNER_PRODUCT if metric == "inner_product" else faiss.METRIC_L2
    arrays = queries.cpu().numpy(), bank.cpu().numpy()
    has_gpu = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
    if has_gpu and k <= LARGEST_GPU_K:
        values, index = faiss.knn_gpu(faiss.StandardGpuResources(), *arrays, k, metric=code)
    else:
        # Set right before use: whoever of torch and FAISS set it last may have set it for both.
        faiss.omp_set_num_threads(torch.get_num_threads())
        values, index = faiss.knn(*arrays, k, metric=code)
    similarity = torch.from_numpy(values).to(queries.device)
    if metric == "euclidean":
        similarity = similarity.clamp_(min=0).neg_()
    return similarity, torch.from_numpy(index).to(queries.device)
