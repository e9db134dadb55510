"""Where indexes are built, and how they come to their address."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from setrep.errors import InputError
from setrep.index import places
from setrep.index.door import create_engine, open_engine
from setrep.index.manifest import aside_of
from setrep.index.records import join
from tests.test_engines import DIM, MEMBER_DIM, same, some

needs_milvus = pytest.mark.skipif(find_spec("pymilvus") is None, reason="pymilvus is not installed")
OLD, NEW = some(["a", 1]), some(["b"], seed=1)


def make(address, records=OLD):
    with create_engine(address, DIM, MEMBER_DIM) as engine:
        engine.add(records)


def held(address):
    with open_engine(address) as engine:
        return join([some([]), *engine.iterate()])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["directory", pytest.param("milvus", marks=needs_milvus)])
def address(request, tmp_path):
    return {
        "directory": f"faiss:{tmp_path / 'index'}",
        "milvus": f"milvus:{tmp_path / 'index.db'}#index",
    }[request.param]


def test_an_index_is_built_beside_its_address(address):
    assert not places.exists(address)
    with places.replacing(address) as built:
        assert built != address
        make(built)
        assert places.exists(built)
        assert not places.exists(address)
    assert places.exists(address)
    assert not places.exists(built)
    same(held(address), OLD)
    with places.replacing(address) as built:
        make(built, NEW)
        same(held(address), OLD)
    same(held(address), NEW)
    assert not places.exists(built)


def fail_while_building(address, error):
    with places.replacing(address) as built:
        make(built, NEW)
        raise error


def test_what_failed_leaves_what_was_there(address):
    built = places.building(address)
    make(address)
    for error in (InputError("no"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            fail_while_building(address, error)
        assert not places.exists(built)
        same(held(address), OLD)
    make(built, NEW)  # what a kill left
    with places.replacing(address) as built:
        assert not places.exists(built)
        make(built, NEW)
    same(held(address), NEW)


def test_what_is_discarded_is_gone(address):
    places.discard(address)
    make(address)
    places.discard(address)
    assert not places.exists(address)
    with pytest.raises(InputError, match="There is no index"):
        held(address)
    places.discard(address)


def test_addresses_of_one_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for one, other in (
        ("index", "faiss:index"),
        ("index", Path("index")),
        (str(tmp_path / "index"), "faiss:./deep/../index"),
        ("milvus:a.db", "milvus:./a.db#setrep"),
        ("milvus:http://localhost:19530", "milvus:http://localhost:19530#setrep"),
    ):
        assert places.is_same(one, other)
        assert places.is_same(other, one)
    for one, other in (
        ("index", "other"),
        ("faiss:index", "milvus:index"),
        ("milvus:a.db#one", "milvus:a.db#two"),
        ("milvus:a.db#one", "milvus:b.db#one"),
    ):
        assert not places.is_same(one, other)


def test_the_building_place_is_hidden_beside_the_address(tmp_path):
    target = tmp_path / "deep" / "index"
    assert places.building(target) == f"faiss:{tmp_path}/deep/.index.setrep-building"
    assert places.building(f"faiss:{target}/") == places.building(target)
    assert places.building("milvus:a.db#one") == "milvus:a.db#one_building"
    assert places.building("milvus:a.db") == "milvus:a.db#setrep_building"
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to(target)
    assert places.building(tmp_path / "link") == places.building(target)


def test_a_link_to_an_index_stays_one(tmp_path):
    make(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with places.replacing(tmp_path / "link") as built:
        make(built, NEW)
    assert (tmp_path / "link").is_symlink()
    same(held(tmp_path / "real"), NEW)
    assert names(tmp_path) == ["link", "real"]


def test_an_index_left_aside_by_a_kill_is_there_and_goes_back(tmp_path):
    target = tmp_path / "index"
    make(aside_of(target))
    assert places.exists(target)
    same(held(target), OLD)
    with places.replacing(target) as built:
        make(built, NEW)
    same(held(target), NEW)
    assert names(tmp_path) == ["index"]
    make(aside_of(target), some(["stale"]))  # of which only the removal was cut short
    assert held(target).ids == ("b",)
    with places.replacing(target) as built:
        make(built, OLD)
    same(held(target), OLD)
    assert names(tmp_path) == ["index"]
    (target / "manifest.json").unlink()
    assert not places.exists(target)


def test_when_the_new_index_cannot_be_moved_in_the_old_goes_back(tmp_path, monkeypatch):
    target = tmp_path / "index"
    make(target)
    make(tmp_path / "built", NEW)
    rename = Path.rename

    def refuse_staged(path: Path, to: Path) -> Path:
        if path.name == "built":
            raise OSError(13, "Permission denied")
        return rename(path, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse_staged)
        with pytest.raises(
            InputError, match=r"Permission denied. It is whole at .*built"
        ) as caught:
            places.publish(tmp_path / "built", target)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["built", "index"]
    same(held(target), OLD)
    same(held(tmp_path / "built"), NEW)
    places.publish(tmp_path / "built", target)
    same(held(target), NEW)
    assert names(tmp_path) == ["index"]


def test_an_old_index_that_cannot_be_removed_does_not_come_back(tmp_path, monkeypatch):
    target = tmp_path / "index"
    make(target)
    make(tmp_path / "built", NEW)

    def fail(*_, **__):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("setrep.index.places.remove_index", lambda folder: folder.exists() and fail())
        places.publish(tmp_path / "built", target)
    same(held(target), NEW)
    make(tmp_path / "built", OLD)
    places.publish(tmp_path / "built", target)
    assert names(tmp_path) == ["index"]


def test_what_is_no_index_is_never_replaced_or_removed(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").write_text("")
    (tmp_path / "photos" / "manifest.json").write_text('{"format": "other"}')
    (tmp_path / "file").write_text("")
    make(tmp_path / "built")
    for name in ("photos", "file"):
        assert not places.exists(tmp_path / name)
        for act in (
            lambda place: places.refuse(place),
            lambda place: places.publish(tmp_path / "built", place),
            lambda place: places.replacing(place).__enter__(),
        ):
            with pytest.raises(InputError, match="exists and is not an index of setrep") as caught:
                act(tmp_path / name)
            assert "\n" not in str(caught.value)
    for gone in ("nowhere", "empty"):
        places.refuse(tmp_path / gone)
        (tmp_path / "empty").mkdir(exist_ok=True)
    places.publish(tmp_path / "built", tmp_path / "empty")
    same(held(tmp_path / "empty"), OLD)
    assert names(tmp_path / "photos") == ["manifest.json", "one.png"]
    assert names(tmp_path) == ["empty", "file", "photos"]


def test_a_place_that_another_process_writes_to_is_left_alone(tmp_path):
    target = tmp_path / "index"
    make(target)
    make(tmp_path / "built", NEW)
    with open_engine(target) as writer:
        writer.delete([1])
        for act in (
            lambda: places.publish(tmp_path / "built", target),
            lambda: places.discard(target),
        ):
            with pytest.raises(InputError, match="Another process is writing to"):
                act()
    assert held(target).ids == ("a",)
    same(held(tmp_path / "built"), NEW)
    places.publish(tmp_path / "built", target)
    same(held(target), NEW)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path):
    make(tmp_path / "index")
    (tmp_path / "index").chmod(0o500)
    try:
        with pytest.raises(InputError, match="Cannot remove"):
            places.discard(tmp_path / "index")
    finally:
        (tmp_path / "index").chmod(0o700)


def test_what_cannot_be_removed_is_said_in_one_line(tmp_path):
    (tmp_path / "built").write_text("")
    with pytest.raises(InputError, match="Cannot remove") as caught:
        places.discard(tmp_path / "built")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "built").exists()


def test_what_cannot_be_read_is_not_taken_for_something_else(tmp_path, monkeypatch):
    make(tmp_path / "index")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    for act in (places.exists, places.refuse, lambda of: places.publish(of, of)):
        with pytest.raises(InputError, match=r"Cannot read .*manifest.json: Permission denied"):
            act(str(tmp_path / "index"))
