"""Weighted kNN while training, after every so many epochs."""

from __future__ import annotations

import torch
from torch import Tensor

from setrep.config import Config
from setrep.errors import InputError
from setrep.methods.method import Method
from setrep.protocols.baselines import embed_dataset, labels_as_in
from setrep.protocols.items import evaluate_items
from setrep.reports.evaluation import EvaluationData


class KnnMonitor:
    """Measure the encoder that is being trained, in evaluation mode, as `evaluation.json` will."""

    def __init__(self, data: EvaluationData, config: Config) -> None:
        if data.bank is None:
            raise InputError(
                "evaluation.every_epochs compares with the training items: it goes with "
                "evaluation.protocol=train_bank."
            )
        self.dataset, self.bank = data.dataset, data.bank
        self.every_epochs = config.evaluation.every_epochs
        self.settings = config.evaluation

    def __call__(self, method: Method) -> dict[str, float]:
        """Return top-1, top-5 and worst class of the split's items against the bank."""
        device = next(method.parameters()).device
        was_training = method.training
        method.eval()

        def embed(items: Tensor) -> Tensor:
            embeddings: Tensor = method.encoder(items.to(device))
            return embeddings.cpu()

        found = evaluate_items(
            embed_dataset(self.dataset, embed),
            torch.from_numpy(self.dataset.labels),
            bank=embed_dataset(self.bank, embed),
            bank_labels=labels_as_in(self.dataset, self.bank),
            knn_k=self.settings.knn_k,
            knn_temperature=self.settings.knn_temperature,
            with_map_at_r=False,
        )
        method.train(was_training)
        return {
            "knn_top1": found.knn_top1,
            "knn_top5": found.knn_top5,
            "worst_class_top1": found.worst_class_top1,
        }
