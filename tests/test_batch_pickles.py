"""Pickled batches are read as data: nothing that they name is run."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from setrep.data.batch_pickles import read_pickle
from tests.fake_published import python2_pickle, random_images, rows_of

DATA = rows_of(random_images(4, 32, seed=0))
BATCH = {"data": DATA, "labels": [0, 1, 2, 1], "filenames": ["a", "b", "c", "d"]}


@pytest.mark.parametrize("write", [python2_pickle, lambda v: pickle.dumps(v, protocol=3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_batch_is_read_as_pickle_reads_it(write, order):
    found = read_pickle(write(BATCH | {"data": np.asarray(DATA, order=order)}))
    np.testing.assert_array_equal(found["data"], DATA)
    assert found["data"].dtype == np.uint8
    assert found["labels"] == BATCH["labels"]


def test_the_fake_of_python_2_is_one():
    content = python2_pickle(BATCH)
    assert b"numpy.core.multiarray" in content
    assert set(pickle.loads(content, encoding="bytes")) == {b"data", b"labels", b"filenames"}
    np.testing.assert_array_equal(pickle.loads(content, encoding="bytes")[b"data"], DATA)


class Touch:
    """Make a file when it is unpickled, as any attack could."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path):
    content = pickle.dumps({"data": Touch(tmp_path / "touched")}, protocol=2)
    with pytest.raises(ValueError, match=r"it names (_io|io)\.open, which images do not need"):
        read_pickle(content)
    assert not (tmp_path / "touched").exists()
    pickle.loads(content)["data"].close()
    assert (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy._core.multiarray\nfromfile\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
        b"(i__builtin__\nlist\n.",
        b"\x82\x01.",  # an extension
        b"P1\n.",  # a persistent name
    ],
)
def test_other_names_are_refused(content):
    with pytest.raises(ValueError, match=r"."):
        read_pickle(content)


@pytest.mark.parametrize("dtype", ["uint16", "int8", "float32", "O", "U3"])
def test_arrays_of_anything_but_bytes_are_refused(dtype):
    array = np.array([1, 2, 3]).astype(dtype)
    with pytest.raises(ValueError, match=r"not of uint8"):
        read_pickle(python2_pickle({"data": array}))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>404</html>",
        b"}",
        b"\x80\x02]q\x00.",  # a list
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a memo of 2**31 entries
        b"}p99999999999\n.",
        b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.",  # 2**63 bytes
        b"}I1\nI2\ns.",  # no text for a key
        b"\x80\x02}b.",
    ],
)
def test_damaged_pickles_are_a_value_error(content):
    with pytest.raises(ValueError, match=r"."):
        read_pickle(content)


def test_a_pickle_cut_short_is_a_value_error():
    content = python2_pickle(BATCH)
    for end in range(0, len(content), 97):
        with pytest.raises(ValueError, match=r"."):
            read_pickle(content[:end])


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_changed_bytes_never_end_in_another_exception(data):
    content = bytearray(python2_pickle({"data": DATA[:1, :6], "labels": [1, 2]}))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read_pickle(bytes(content))
    except ValueError:
        return
    assert isinstance(found, dict)
