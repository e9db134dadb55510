"""FAISS is imported late, used where it is, and replaced by torch where it is not."""

import importlib
import logging
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

from setrep.errors import InputError
from setrep.index import faiss_door
from setrep.index.search import top_k
from tests.embeddings import METRICS, random_vectors


@pytest.fixture
def import_faiss(monkeypatch):
    """Replace what `import faiss` does."""

    def replace(outcome):
        def import_module(name):
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        faiss_door._import_faiss.cache_clear()
        monkeypatch.setattr(faiss_door, "importlib", SimpleNamespace(import_module=import_module))

    yield replace
    faiss_door._import_faiss.cache_clear()


@pytest.mark.parametrize(
    ("outcome", "level", "message"),
    [
        (ModuleNotFoundError("No module named 'faiss'", name="faiss"), "INFO", "not installed"),
        (ModuleNotFoundError("No module named 'numpy.x'", name="numpy.x"), "WARNING", "numpy.x"),
        (RuntimeError("faiss-gpu installed\nbut cuda is missing"), "WARNING", "cuda is missing"),
        (SimpleNamespace(__file__=None), "WARNING", "its directory is empty"),
    ],
)
def test_without_faiss_torch_searches_and_one_line_says_why(
    import_faiss, caplog, outcome, level, message
):
    queries, bank = random_vectors(20, 4, seed=10), random_vectors(50, 4, seed=11)
    expected = top_k(queries, bank, 5)
    import_faiss(outcome)
    with caplog.at_level(logging.INFO):
        assert top_k(queries, bank, 5)[1].equal(expected[1])
        top_k(queries, bank, 5)
    assert [record.levelname for record in caplog.records] == [level]
    assert message in caplog.text
    assert "\n" not in caplog.records[0].getMessage()
    with pytest.raises(InputError, match="backend='faiss' was asked for, but"):
        top_k(queries, bank, 5, backend="faiss")


def test_a_gpu_of_faiss_is_used_where_there_is_one(import_faiss):
    faiss = importlib.import_module("faiss")
    calls = []

    def knn_gpu(resources, queries, bank, k, metric):
        calls.append(resources)
        return faiss.knn(queries, bank, k, metric=metric)

    fake = ModuleType("faiss")
    fake.__file__ = "faiss/__init__.py"
    fake.METRIC_L2, fake.METRIC_INNER_PRODUCT = faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT
    fake.get_num_gpus, fake.StandardGpuResources = lambda: 1, lambda: "gpu"
    fake.knn_gpu = knn_gpu
    bank = random_vectors(60, 4, seed=12)
    expected = [top_k(bank, bank, 5, metric=metric)[1] for metric in METRICS]
    import_faiss(fake)
    found = [top_k(bank, bank, 5, metric=metric)[1] for metric in METRICS]
    assert calls == ["gpu", "gpu"]
    assert all(a.equal(b) for a, b in zip(found, expected, strict=True))


def test_macos_takes_faiss_only_when_asked(monkeypatch):
    monkeypatch.setattr(faiss_door.sys, "platform", "darwin")
    assert faiss_door.load_faiss(is_required=False) is None
    assert faiss_door.load_faiss(is_required=True) is not None


def test_faiss_is_imported_late_and_memory_is_bounded_by_the_chunk():
    # All scores at once would take 20,000 x 20,000 x 4 bytes = 1.6 GB; a chunk takes 0.2 GB.
    code = """
import resource, sys, torch
from setrep.index.search import top_k
print('faiss' in sys.modules)
bank = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0))
for backend in ("faiss", "torch"):
    top_k(bank[:100], bank, 2, backend=backend)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    top_k(bank, bank, 2, backend=backend)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    is_imported, *peaks = done.stdout.split()
    assert is_imported == "False"
    unit = 1 if sys.platform == "darwin" else 1024
    assert max(int(peak) for peak in peaks) * unit < 700e6
