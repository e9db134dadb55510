"""`setrep index`, `setrep query` and `setrep embed` on image files."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from unicodedata import category

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from setrep.index import places
from setrep.reports import indexing
from setrep.retrieval import CollectionIndex
from setrep.retrieval.certificate import to_note
from setrep.set_distances import SET_DISTANCES
from tests.command_line import call
from tests.command_line import surroundings as surroundings
from tests.set_encoders import make_encoder

LABELS, COLLECTIONS, ITEMS = 3, 4, 6


def write_photos(root, *, seed=0, items=ITEMS, noise=4):
    """Write `root/<label>/<collection>/*.png`: those of a label are alike, of a collection more."""
    draw = np.random.default_rng(7)
    pictures = draw.integers(20, 236, (LABELS, 1, 8, 8))
    pictures = pictures + draw.integers(-15, 15, (LABELS, COLLECTIONS, 8, 8))
    generator = np.random.default_rng(seed)
    for label in range(LABELS):
        for number in range(COLLECTIONS):
            folder = root / f"l{label}" / f"c{number}"
            folder.mkdir(parents=True)
            for item in range(items):
                pixels = pictures[label, number] + generator.integers(-noise, noise, (8, 8))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{item}.png")
    return root


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Photos, new photos of the same collections, a model, and an index of the first."""
    root = tmp_path_factory.mktemp("shop")
    write_photos(root / "photos")
    write_photos(root / "new", seed=1)
    make_encoder().save_pretrained(root / "run")
    done = call("index", "run", "photos", "--labelled", "--output", "index", cwd=root)
    assert done.code == 0, done.err
    (root / "index.out").write_text(done.out)
    return root


def found(shop, *arguments):
    done = call("query", "index", *arguments, "--json", cwd=shop)
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


def test_every_collection_is_found_by_new_images_of_it(shop):
    for label in range(LABELS):
        for number in range(COLLECTIONS):
            result = found(shop, f"new/l{label}/c{number}", "-k", 3)
            best = result["matches"][0]
            assert (best["id"], best["label"]) == (f"l{label}/c{number}", f"l{label}")
            assert len(result["matches"]) == 3
            assert result["query"] == [f"new/l{label}/c{number}/{i}.png" for i in range(ITEMS)]
            assert [pair["query_item"] for pair in best["items"]] == list(range(ITEMS))
            for pair in best["items"]:
                assert pair["source"] == f"l{label}/c{number}/{pair['member']}.png"


def test_index_says_what_it_did_and_what_is_certified(shop):
    out = (shop / "index.out").read_text()
    assert "Indexed 12 collections (72 items) in index\n" in out
    assert "certified errors, the largest of 3 labels: 2 items 0.82, 3 items 0.49" in out
    assert "It says nothing of items from elsewhere" in out
    assert json.loads(call("list", "aggregators", "--json", cwd=shop).out)  # stdout is not closed


def test_a_query_prints_matches_and_how_far_to_trust_them(shop):
    result = found(shop, "new/l1/c2")
    shown = call("query", "index", "new/l1/c2", cwd=shop).out
    lines = shown.splitlines()
    assert "l1/c2" in lines[3]
    assert ".png ~ " in lines[3]
    assert f"margin {result['margin']:.6g}" in shown
    assert f"delta(6) = {result['delta']:.3g}" in " ".join(shown.split())
    assert "says nothing of items from elsewhere" in " ".join(shown.split())


@pytest.mark.parametrize("name", SET_DISTANCES)
def test_a_query_is_re_ranked_by_any_set_distance(name, shop):
    result = found(shop, "new/l1/c2", "--rerank", name, "--candidates", 5)
    assert result["matches"][0]["id"] == "l1/c2"
    assert result["delta"] is None
    assert "re-ranking" in result["delta_note"]
    assert result["is_exact"] == (name == "wasserstein")
    shown = call("query", "index", "new/l1/c2", "--rerank", name, cwd=shop).out
    assert name in shown
    assert "measured" in shown


def test_filters_and_exclusions_leave_out_exactly_what_they_say(shop, tmp_path):
    assert {m["label"] for m in found(shop, "new/l1/c2", "--filter", "label=l0,l2")["matches"]} == {
        "l0",
        "l2",
    }
    left = found(shop, "new/l1/c2", "--exclude", "l1/c2", "--exclude", "l0/c0")["matches"]
    assert len(left) == 10
    assert not {"l1/c2", "l0/c0"} & {match["id"] for match in left}
    told = {"l0/c1": {"year": 2024, "new": True}, "l2/c3": {"year": "2024"}, "l1/c0": {"year": 7}}
    (tmp_path / "told.json").write_text(json.dumps(told))
    target = tmp_path / "index"
    arguments = ["--labelled", "--metadata", tmp_path / "told.json", "--output", target]
    assert call("index", "run", "photos", *arguments, cwd=shop).code == 0

    def ids(*filters):
        options = [word for text in filters for word in ("--filter", text)]
        done = call("query", target, "new/l1/c2", "--json", *options, cwd=shop)
        return {match["id"] for match in json.loads(done.out)["matches"]}

    assert ids("year=2024") == {"l0/c1", "l2/c3"}  # a number or text, as it is written
    assert ids("year=7,2024", "label=l1") == {"l1/c0"}
    assert ids("new=true") == {"l0/c1"}
    assert ids("year=8") == set()


def test_a_filter_in_json_names_values_as_they_are(shop, tmp_path):
    told = {"l0/c1": {"of": "a,b"}, "l1/c0": {"of": "2024"}, "l2/c2": {"of": 2024}}
    told |= {"l2/c3": {"of": "[c]"}, "l0/c0": {"of": "a"}, "l0/c2": {"of": ["a,b"]}}
    (tmp_path / "told.json").write_text(json.dumps(told))
    target = tmp_path / "index"
    arguments = ["--labelled", "--metadata", tmp_path / "told.json", "--output", target]
    assert call("index", "run", "photos", *arguments, cwd=shop).code == 0

    def ids(text):
        done = call("query", target, "new/l1/c2", "--json", "--filter", text, cwd=shop)
        return {match["id"] for match in json.loads(done.out)["matches"]}

    assert ids("of=a,b") == {"l0/c0"}
    assert ids('of=["a,b"]') == {"l0/c1"}
    assert ids('of=["a,b", "a"]') == {"l0/c1", "l0/c0"}
    assert ids("of=2024") == {"l1/c0", "l2/c2"}
    assert ids("of=[2024]") == {"l2/c2"}
    assert ids('of=["2024"]') == {"l1/c0"}
    assert ids('of=["[c]"]') == {"l2/c3"}
    assert ids('of=[["a,b"]]') == {"l0/c2"}
    assert ids("of=[]") == set()


def test_max_error_refuses_sizes_that_are_not_certified_and_names_one_that_is(shop, tmp_path):
    certificate = CollectionIndex.open(shop / "index").certificate
    limit = certificate.deltas[2]
    assert certificate.smallest_size(limit) == 3
    few = [f"new/l1/c2/{i}.png" for i in range(2)]
    refused = call("query", "index", *few, "--max-error", limit, cwd=shop)
    assert refused.code == 2
    assert "a query of 3 items would do" in refused.err
    assert refused.out == ""
    enough = call("query", "index", *few, few[0], "--max-error", limit, cwd=shop)
    assert enough.code == 0
    shutil.copytree(shop / "photos", tmp_path / "photos")
    shutil.copytree(shop / "photos" / "l1", tmp_path / "photos" / "l1 again")
    call("index", "run", tmp_path / "photos", "--labelled", "--output", tmp_path / "i", cwd=shop)
    none = call("query", tmp_path / "i", *few, "--max-error", "0.9", cwd=shop)
    assert "no size up to 18 would do" in none.err


def test_a_query_of_most_of_a_pool_says_so(shop):
    photos = [f"photos/l0/c{i}/{j}.png" for i in range(2) for j in range(5)]
    assert found(shop, *photos[:9])["delta_note"].endswith("from elsewhere")
    assert found(shop, *photos)["delta_note"].endswith(
        "10 items are most of the smallest pool, of 18"
    )


def test_held_out_items_certify_collections_without_a_label(shop, tmp_path):
    target = tmp_path / "index"
    plain = call("index", "run", "photos/l1", "--output", target, cwd=shop)
    assert "no certificate: Collection 'c3' has no label" in " ".join(plain.out.split())
    arguments = ["--output", target, "--overwrite", "--pools", "new/l1", "--json"]
    built = json.loads(call("index", "run", "photos/l1", *arguments, cwd=shop).out)
    assert [one["label"] for one in built["certificate"]["labels"]] == ["c0", "c1", "c2", "c3"]
    assert [one["num_pool"] for one in built["certificate"]["labels"]] == [ITEMS] * 4
    assert "held-out items" in built["certificate"]["model"]
    query = call("query", target, "new/l1/c2", "--max-error", "0.99", "--json", cwd=shop)
    assert json.loads(query.out)["delta"] == built["certificate"]["delta"][ITEMS - 1]


def test_a_build_that_was_interrupted_goes_on(shop, tmp_path, monkeypatch):
    target, calls = tmp_path / "index", []
    monkeypatch.setattr(indexing, "ITEMS_AT_ONCE", 1)
    embed = indexing.embed

    def fails_at_the_fifth(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return embed(*arguments)

    monkeypatch.setattr(indexing, "embed", fails_at_the_fifth)
    command = ("index", "run", "photos", "--labelled", "--output", target)
    assert call(*command, cwd=shop).code == 130
    assert not target.exists()
    done = call(*command, cwd=shop)
    assert done.code == 0
    assert "24 of 72 items are embedded already." in done.err
    assert "(72 items, 24 of them embedded before)" in done.out
    assert len(calls) == 5 + 8
    assert list(tmp_path.iterdir()) == [target]
    same_collections(target, shop / "index")


def same_collections(one, other):
    """Compare two indexes but for the order of their collections."""
    first, second = (CollectionIndex.open(place).engine for place in (one, other))
    assert sorted(first.ids()) == sorted(second.ids())
    ids = sorted(first.ids())
    a, b = first.fetch(ids), second.fetch(ids)
    np.testing.assert_allclose(a.vectors, b.vectors, atol=1e-6)  # embedded in other batches
    np.testing.assert_allclose(a.members, b.members, atol=1e-6)
    assert [of["sources"] for of in a.payloads] == [of["sources"] for of in b.payloads]


def test_a_build_that_was_killed_goes_on(shop, tmp_path):
    target = tmp_path / "index"
    code = (
        "import setrep.reports.indexing as i, time\n"
        "i.ITEMS_AT_ONCE, i.SECONDS_BETWEEN_WRITES = 1, 0\n"
        "embed = i.embed\n"
        "def slow(*a):\n    time.sleep(0.1)\n    return embed(*a)\n"
        "i.embed = slow\n"
        f"i.build_index('run', 'photos', {str(target)!r}, labelled=True)\n"
    )
    built = tmp_path / ".index.setrep-building"
    child = subprocess.Popen([sys.executable, "-c", code], cwd=shop)
    while child.poll() is None and len(list(built.glob("segments/*/rows.json"))) < 3:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not target.exists()
    done = call("index", "run", "photos", "--labelled", "--output", target, cwd=shop)
    assert done.code == 0
    assert "items are embedded already" in done.err
    same_collections(target, shop / "index")


def test_what_another_model_or_directory_left_is_not_gone_on_from(shop, tmp_path, monkeypatch):
    target = tmp_path / "index"
    make_encoder(seed=1).save_pretrained(tmp_path / "other")
    for run, photos in ((tmp_path / "other", "photos"), ("run", "new")):
        with monkeypatch.context() as patch:
            patch.setattr(indexing, "finish", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                indexing.build_index(shop / run, shop / photos, target, labelled=True, device="cpu")
        assert len(CollectionIndex.open(places.building(target))) == 12
        done = call("index", "run", "photos", "--labelled", "--output", target, cwd=shop)
        assert (done.code, done.err) == (0, "")
        same_collections(target, shop / "index")
        shutil.rmtree(target)


def test_update_embeds_what_is_new_or_changed_and_removes_what_is_gone(shop, tmp_path):
    photos, target = tmp_path / "photos", tmp_path / "index"
    shutil.copytree(shop / "photos", photos)
    command = ("index", shop / "run", photos, "--labelled", "--output", target)
    assert call(*command, cwd=shop).code == 0
    refused = call(*command, cwd=shop)
    assert refused.code == 2
    assert "--update" in refused.err
    shutil.rmtree(photos / "l0" / "c0")
    shutil.copytree(photos / "l1" / "c1", photos / "l1" / "c9")
    shutil.copy(shop / "new" / "l2" / "c2" / "0.png", photos / "l2" / "c2" / "9.png")
    done = call(*command, "--update", cwd=shop)
    assert "Indexed 12 collections (73 items, 60 of them embedded before)" in done.out
    again = tmp_path / "again"
    call("index", shop / "run", photos, "--labelled", "--output", again, cwd=shop)
    same_collections(target, again)
    nothing = call(*command, "--update", cwd=shop)
    assert "(73 items, 73 of them embedded before)" in nothing.out
    other = call("index", shop / "run", shop / "new", "--output", target, "--update", cwd=shop)
    assert other.code == 2
    assert "--labelled" in other.err


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_other_metadata_alone_embed_nothing(kind, shop, tmp_path, monkeypatch):
    target, told = tmp_path / "index", tmp_path / "told.json"
    monkeypatch.setattr(indexing, "KEPT_AT_ONCE", 2 * ITEMS)
    command = ("index", "run", "photos", "--labelled", "--output", target)
    assert call(*command, "--kind", kind, cwd=shop).code == 0
    told.write_text(json.dumps({f"l0/c{i}": {"year": 2020 + i} for i in range(3)}))
    with monkeypatch.context() as patch:
        patch.setattr(indexing, "embed", lambda *_: 1 / 0)
        done = call(*command, "--update", "--metadata", told, cwd=shop)
        again = call(*command, "--update", "--metadata", told, cwd=shop)
    for one in (done, again):
        assert (one.code, one.err) == (0, "72 of 72 items are embedded already.\n")
        assert "(72 items, 72 of them embedded before)" in one.out
    same_collections(target, shop / "index")
    asked = call("query", target, "new/l1/c2", "--filter", "year=2021", "--json", cwd=shop)
    assert [match["id"] for match in json.loads(asked.out)["matches"]] == ["l0/c1"]
    with CollectionIndex.open(target) as index:
        assert index.engine.kind.kind == kind
        assert isinstance(index.certificate, str) == (kind == "ivf")
    assert call(*command, "--update", cwd=shop).code == 0
    asked = call("query", target, "new/l1/c2", "--filter", "year=2021", "--json", cwd=shop)
    assert json.loads(asked.out)["matches"] == []


def test_files_and_metadata_that_change_together_are_both_taken(shop, tmp_path):
    photos, target, told = tmp_path / "photos", tmp_path / "index", tmp_path / "told.json"
    shutil.copytree(shop / "photos", photos)
    command = ("index", shop / "run", photos, "--labelled", "--output", target)
    assert call(*command, cwd=shop).code == 0
    told.write_text(json.dumps({"l0/c0": {"x": 1}, "l0/c1": {"x": 1}}))
    shutil.copy(shop / "new" / "l0" / "c0" / "0.png", photos / "l0" / "c0" / "9.png")
    done = call(*command, "--update", "--metadata", told, cwd=shop)
    assert "(73 items, 66 of them embedded before)" in done.out
    again = tmp_path / "again"
    assert call(*command[:-1], again, "--metadata", told, cwd=shop).code == 0
    same_collections(target, again)


@pytest.mark.parametrize("stamp", [None, 7, "", "{", "[]", "[7]", "7", "[" * 100_000])
def test_what_has_no_stamp_is_embedded_again(stamp, shop, tmp_path):
    target = tmp_path / "index"
    shutil.copytree(shop / "index", target)
    with CollectionIndex.open(target) as index:
        old = index.engine.fetch(["l1/c2"])
        payload = {name: value for name, value in old.payloads[0].items() if name != "stamp"}
        payload |= {} if stamp is None else {"stamp": stamp}
        index.engine.replace(dataclasses.replace(old, payloads=(payload,)))
    command = ("index", "run", "photos", "--labelled", "--output", target, "--update")
    assert "(72 items, 66 of them embedded before)" in call(*command, cwd=shop).out
    same_collections(target, shop / "index")


def test_an_update_that_fails_leaves_what_was_there(shop, tmp_path):
    photos, target = tmp_path / "photos", tmp_path / "index"
    shutil.copytree(shop / "photos", photos)
    command = ("index", shop / "run", photos, "--labelled", "--output", target)
    assert call(*command, "--kind", "ivf", cwd=shop).code == 0
    for path in photos.rglob("*.png"):
        os.utime(path)
    (photos / "l0" / "c0" / "broken.png").write_bytes(b"no image")
    assert call(*command, "--update", cwd=shop).code == 2
    same_collections(target, shop / "index")
    (photos / "l0" / "c0" / "broken.png").unlink()
    assert call(*command, "--update", cwd=shop).code == 0
    same_collections(target, shop / "index")
    with CollectionIndex.open(target) as index:
        assert index.engine.kind.kind == "ivf"


def test_an_approximate_index_answers_no_query_of_a_certain_error(shop, tmp_path):
    target = tmp_path / "index"
    command = ("index", "run", "photos", "--labelled", "--output", target, "--kind", "ivf")
    assert "approximately" in " ".join(call(*command, cwd=shop).out.split())
    refused = call("query", target, "new/l1/c2", "--max-error", "0.99", cwd=shop)
    assert refused.code == 2
    assert "approximately" in refused.err


def test_a_second_build_is_refused_while_one_is_under_way(shop, tmp_path, monkeypatch):
    target, inside = tmp_path / "index", []
    finish = indexing.finish

    def other_meanwhile(*arguments):
        make_encoder(seed=1).save_pretrained(tmp_path / "other")
        for run in ("run", tmp_path / "other"):
            monkeypatch.setattr(indexing, "finish", finish)
            inside.append(call("index", run, "photos", "--labelled", "--output", target, cwd=shop))
        return finish(*arguments)

    monkeypatch.setattr(indexing, "finish", other_meanwhile)
    done = call("index", "run", "photos", "--labelled", "--output", target, cwd=shop)
    assert done.code == 0, done.err
    assert [one.code for one in inside] == [2, 2]
    assert all("Another process is writing" in one.err for one in inside)
    same_collections(target, shop / "index")


def test_a_page_of_the_result_is_written(shop, tmp_path):
    page = tmp_path / "found.html"
    done = call("query", "index", "new/l1/c2", "--html", page, cwd=shop)
    assert done.code == 0
    assert str(page) in "".join(done.out.split("\n"))
    text = page.read_text()
    assert "l1/c2" in text
    assert "data:image/" in text
    assert "http://" not in text


def test_the_page_shows_no_file_outside_of_the_root_that_it_names(shop, tmp_path):
    target, page = tmp_path / "index", tmp_path / "found.html"
    shutil.copytree(shop / "index", target)
    shutil.copy(shop / "photos" / "l0" / "c0" / "0.png", tmp_path / "secret.png")
    with CollectionIndex.open(target) as index:
        old = index.engine.fetch(["l1/c2"])
        payload = old.payloads[0] | {"sources": [str(tmp_path / "secret.png")] * ITEMS}
        index.engine.replace(dataclasses.replace(old, payloads=(payload,)))
    done = call("query", target, "new/l1/c2", "-k", 1, "--html", page, cwd=shop)
    assert done.code == 0
    assert page.read_text().count("data:image/") == ITEMS  # of the query
    said = f"files below {shop / 'photos'}, which the index names"
    assert f"it shows members from {said}" in "".join(done.out.split("\n"))
    assert said in page.read_text()


def test_names_steer_no_terminal(shop, tmp_path):
    bad = "\x1b[31m\u202e\u2066\x7f\x9b"
    for name in ("0", "1"):
        shutil.copytree(shop / "photos" / "l0" / "c0", tmp_path / "photos" / f"{name}{bad}c")
    target = tmp_path / f"index{bad}"
    built = call("index", shop / "run", tmp_path / "photos", "--output", target, cwd=tmp_path)
    with CollectionIndex.open(target) as index:
        index.engine.annotate(to_note(f"none {bad}"))
    query = tmp_path / "photos" / f"0{bad}c"
    page = tmp_path / f"page{bad}.html"
    asked = call("query", target, query, "--html", page, cwd=tmp_path)
    assert "0\ufffd[31m" in asked.out
    assert "no certificate: none \ufffd[31m" in asked.out
    assert page.exists()
    vectors = tmp_path / f"{bad}.npz"
    embedded = call("embed", shop / "run", tmp_path / "photos", "--output", vectors, cwd=tmp_path)
    refused = call("query", target, tmp_path / bad, cwd=tmp_path)
    assert (built.code, asked.code, embedded.code, refused.code) == (0, 0, 0, 2)
    for text in (built.out, asked.out, embedded.out, refused.err):
        assert {one for one in text if category(one) in ("Cc", "Cf")} == {"\n"}


@pytest.fixture
def oddly_named(shop, tmp_path):
    """Photos whose names are no UTF-8."""
    folder = tmp_path / "photos" / os.fsdecode(b"\xe9t\xe9")
    try:
        shutil.copytree(shop / "photos" / "l0" / "c0", folder)
        (folder / "0.png").rename(folder / os.fsdecode(b"\xff.png"))
    except OSError:
        pytest.skip("this file system has names in UTF-8 alone")
    return folder


def test_names_that_are_not_utf_8_are_found_and_shown(oddly_named, shop, tmp_path):
    target = tmp_path / os.fsdecode(b"index\xff")
    built = call("index", shop / "run", tmp_path / "photos", "--output", target, cwd=shop)
    page = tmp_path / os.fsdecode(b"\xff.html")
    asked = call("query", target, oddly_named, "--html", page, cwd=shop)
    in_json = call("query", target, oddly_named, "--json", cwd=shop)
    left_out = call("query", target, oddly_named, "--exclude", oddly_named.name, cwd=shop)
    for done in (built, asked, in_json, left_out):
        assert done.code == 0, done.err
        done.out.encode()  # or a terminal could not show it
    assert "no UTF-8" not in page.read_text()
    assert "\ufffdt\ufffd" in page.read_text()
    best = json.loads(in_json.out)["matches"][0]
    assert os.fsencode(best["id"]) == b"\xe9t\xe9"
    assert b"\xe9t\xe9/\xff.png" in {os.fsencode(pair["source"]) for pair in best["items"]}
    assert "t\ufffd" not in left_out.out


@pytest.mark.skipif(find_spec("pymilvus") is None, reason="pymilvus is not installed")
def test_milvus_takes_an_index_by_its_address_alone(shop, tmp_path):
    address = f"milvus:{tmp_path / 'shop.db'}#photos"
    command = ("index", "run", "photos", "--labelled", "--output", address)
    assert call(*command, cwd=shop).code == 0
    assert call(*command, cwd=shop).code == 2
    done = call("query", address, "new/l1/c2", "--json", cwd=shop)
    assert json.loads(done.out) == found(shop, "new/l1/c2")
    assert call(*command, "--overwrite", cwd=shop).code == 0
    done = call("query", address, "new/l1/c2", "--json", cwd=shop)
    assert json.loads(done.out) == found(shop, "new/l1/c2")


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("level", ["collections", "items", "both"])
def test_embeddings_are_those_of_the_index(suffix, level, shop, tmp_path):
    target = tmp_path / f"out.{suffix}"
    command = ("embed", "run", "photos", "--labelled", "--output", target, "--level", level)
    done = call(*command, cwd=shop)
    assert done.out == f"Embedded 12 collections (72 items) in {target}\n"
    if suffix == "npz":
        arrays = dict(np.load(target, allow_pickle=False))
        assert str(arrays.pop("fingerprint")) == make_encoder().fingerprint
    else:
        with safe_open(target, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            texts = json.loads(file.metadata()["setrep"])
        assert texts.pop("fingerprint") == make_encoder().fingerprint
        arrays |= {name: np.array(of) for name, of in texts.items()}
    engine = CollectionIndex.open(shop / "index").engine
    records = engine.fetch(sorted(engine.ids()))
    of_items = {name for name in arrays if name.startswith("item_")}
    assert bool(of_items) == (level != "collections")
    assert (set(arrays) != of_items) == (level != "items")
    if level != "items":
        assert arrays["ids"].tolist() == list(records.ids)
        assert arrays["labels"].tolist() == [of["label"] for of in records.payloads]
        assert arrays["sizes"].tolist() == [ITEMS] * 12
        np.testing.assert_array_equal(arrays["embeddings"], records.vectors)
    if level != "collections":
        names = [name for of in records.payloads for name in of["sources"]]
        assert arrays["item_sources"].tolist() == names
        assert arrays["item_collections"].tolist() == list(np.repeat(records.ids, ITEMS))
        np.testing.assert_array_equal(arrays["item_embeddings"], records.members)
    assert list(tmp_path.iterdir()) == [target]


def test_parquet_holds_one_table(shop, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    target = tmp_path / "out.parquet"
    command = ("embed", "run", "photos", "--labelled", "--output", target)
    assert call(*command, "--level", "items", cwd=shop).code == 0
    table = parquet.read_table(target)
    assert table.num_rows == 72
    assert table.column_names == [
        "item_sources",
        "item_collections",
        "item_labels",
        "item_embeddings",
    ]
    assert len(table["item_embeddings"][0].as_py()) == 4


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_embeddings_keep_names_that_are_not_utf_8(suffix, oddly_named, shop, tmp_path):
    target = tmp_path / f"out.{suffix}"
    done = call("embed", shop / "run", tmp_path / "photos", "--output", target, cwd=shop)
    assert done.code == 0, done.err
    if suffix == "npz":
        names = np.load(target, allow_pickle=False)["item_sources"].tolist()
    else:
        with safe_open(target, framework="np") as file:
            names = json.loads(file.metadata()["setrep"])["item_sources"]
    assert b"\xe9t\xe9/\xff.png" in map(os.fsencode, names)


def test_parquet_refuses_names_that_are_not_utf_8(oddly_named, shop, tmp_path):
    pytest.importorskip("pyarrow")
    command = ("embed", shop / "run", tmp_path / "photos", "--output", tmp_path / "out.parquet")
    done = call(*command, "--level", "items", cwd=shop)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "is not UTF-8" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


BAD = {
    "two layouts": ("index run photos --output {t}/i", "Images lie two directories deep"),
    "one layout": ("index run photos/l0 --labelled --output {t}/i", "one directory deep"),
    "images at the top": ("index run photos/l0/c0 --output {t}/i", "They lie in photos/l0/c0"),
    "a kind that is none": (
        "index run photos --labelled --output {t}/i --kind tree",
        "flat, ivf, hnsw, pq or auto, not 'tree'",
    ),
    "metadata of nothing": (
        "index run photos --labelled --output {t}/i --metadata {t}/told.json",
        "metadata of 'nothing', but no collection",
    ),
    "metadata that are none": (
        "index run photos --labelled --output {t}/i --metadata index/manifest.json",
        "must be JSON as in",
    ),
    "no metadata": ("index run photos --output {t}/i --labelled --metadata no", "Cannot read no"),
    "certificates without labels": (
        "index run photos/l0 --output {t}/i --certify",
        "has no label",
    ),
    "an unknown device": ("index run photos --output {t}/i --labelled --device tpu", "not 'tpu'"),
    "a pool too few": (
        "index run photos --labelled --output {t}/i --pools {t}/pool",
        "no pool of held-out items of 'l1'",
    ),
    "an unknown engine": ("query mlvus:x.db new/l0/c0", "Did you mean 'milvus'"),
    "an unknown distance": ("query index new/l0/c0 --rerank chamfr", "Did you mean 'chamfer'"),
    "a filter of no form": ("query index new/l0/c0 --filter label", "NAME=VALUE"),
    "a filter that is no list": (
        'query index new/l0/c0 --filter label=["l0"',
        "takes a list in JSON",
    ),
    "an error above one": ("query index new/l0/c0 --max-error 3", "from 0 to 1, not 3"),
    "an error re-ranked": (
        "query index new/l0/c0 --max-error 0.5 --rerank chamfer",
        "leave out --rerank",
    ),
    "no image": ("query index {t}/told.json", "told.json"),
    "embeddings in a text": ("embed run photos --labelled --output {t}/x.txt", "use .npz"),
    "embeddings of what": (
        "embed run photos --labelled --output {t}/x.npz --level all",
        "not 'all'",
    ),
    "two tables": ("embed run photos --labelled --output {t}/x.parquet", "is one table"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_answered_is_refused_in_one_line(name, shop, tmp_path):
    (tmp_path / "told.json").write_text('{"nothing": {}}')
    (tmp_path / "pool").mkdir()
    shutil.copytree(shop / "new" / "l0", tmp_path / "pool" / "l0")
    before = {path.name for path in shop.iterdir()}
    command, message = BAD[name]
    done = call(*command.format(t=tmp_path).split(), cwd=shop)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert {path.name for path in shop.iterdir()} == before
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"told.json", "pool", ".i.setrep-building"}


def test_a_damaged_image_is_named_and_what_was_embedded_is_kept(shop, tmp_path, monkeypatch):
    photos, target = tmp_path / "photos", tmp_path / "index"
    shutil.copytree(shop / "photos", photos)
    bad = photos / "l2" / "c3" / "3.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:60])
    monkeypatch.setattr(indexing, "ITEMS_AT_ONCE", 1)
    command = ("index", shop / "run", photos, "--labelled", "--output", target)
    refused = call(*command, cwd=shop)
    assert refused.code == 2
    assert str(bad) in refused.err
    assert not target.exists()
    bad.write_bytes(whole)
    done = call(*command, cwd=shop)
    assert "66 of 72 items are embedded already." in done.err
    same_collections(target, shop / "index")


@pytest.mark.parametrize("command", ["index", "embed"])
def test_what_embedded_nothing_leaves_nothing(command, shop, tmp_path, monkeypatch):
    photos, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(shop / "photos" / "l0", photos)
    target = out / "found.npz"
    out.mkdir()
    arguments = (command, shop / "run", photos, "--output", target)
    first, last = photos / "c0" / "0.png", photos / "c3" / "0.png"
    whole = first.read_bytes()
    monkeypatch.setattr(indexing, "ITEMS_AT_ONCE", 1)
    first.write_bytes(whole[:60])
    refused = call(*arguments, cwd=shop)
    assert (refused.code, str(first) in refused.err) == (2, True)
    assert list(out.iterdir()) == []
    first.write_bytes(whole)
    last.write_bytes(whole[:60])
    assert call(*arguments, cwd=shop).code == 2
    assert [path.name for path in out.iterdir()] == [".found.npz.setrep-building"]
    last.write_bytes(whole)
    done = call(*arguments, cwd=shop)
    assert (done.code, done.err) == (0, "18 of 24 items are embedded already.\n")
    assert list(out.iterdir()) == [target]


LONG = {
    "input to index": "index run {name} --output {t}/i",
    "output to index": "index run photos --labelled --output {t}/{name}",
    "output of a file to index": "index run photos --labelled --output {t}/{name} --overwrite",
    "output to update": "index run photos --labelled --output {t}/{name} --update",
    "run to index": "index {name} photos --labelled --output {t}/i",
    "pools": "index run photos --labelled --output {t}/i --pools {name}",
    "metadata": "index run photos --labelled --output {t}/i --metadata {name}",
    "index to query": "query {name} new/l0/c0",
    "engine to query": "query faiss:{name} new/l0/c0",
    "file to query": "query index {name}",
    "page": "query index new/l0/c0 --html {t}/{name}",
    "run to embed": "embed {name} photos --labelled --output {t}/x.npz",
    "input to embed": "embed run {name} --output {t}/x.npz",
    "output to embed": "embed run photos --labelled --output {t}/{name}.npz",
}


@pytest.mark.parametrize("command", LONG)
@pytest.mark.parametrize("name", ["x" * 252, "x" * 300, "x\0y", "told.json/x"])
def test_a_name_that_no_file_can_have_is_refused_in_one_line(command, name, shop, tmp_path):
    (tmp_path / "told.json").write_text("{}")
    shutil.copy(tmp_path / "told.json", shop)  # a file in place of a directory
    words = LONG[command].format(t=tmp_path, name=name).split(" ")
    done = call(*words, cwd=shop)
    assert (done.code, done.out) == (2, ""), done
    assert done.err.startswith("Error: ")
    assert done.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["told.json"]


COMMANDS = {
    "index": "index run photos --labelled --output {t}/i",
    "update": "index run photos --labelled --output index --update",
    "query": "query index new/l0/c0 --html {t}/x.html",
    "embed": "embed run photos --labelled --output {t}/x.npz",
}
CALLS = ("is_dir", "exists", "iterdir", "stat", "glob", "mkdir", "open", "read_bytes")


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_may_not_be_read_or_written_is_said_in_one_line(
    command, method, shop, tmp_path, monkeypatch
):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, method, refuse)
        done = call(*COMMANDS[command].format(t=tmp_path).split(), cwd=shop)
    assert done.code in (0, 2)
    if done.code == 2:
        assert done.err.startswith("Error: ")
        assert done.err.count("\n") == 1


def test_a_link_to_itself_is_no_index(shop, tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    for words in (
        ("index", "run", "photos", "--labelled", "--output", loop),
        ("index", "run", loop, "--output", tmp_path / "i"),
        ("query", loop, "new/l0/c0"),
        ("query", "index", loop),
        ("embed", "run", loop, "--output", tmp_path / "x.npz"),
    ):
        done = call(*words, cwd=shop)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert str(loop) in done.err
    assert list(tmp_path.iterdir()) == [loop]


def test_a_picture_that_leads_nowhere_is_named(shop, tmp_path):
    folder = tmp_path / "photos" / "c"
    folder.mkdir(parents=True)
    (folder / "gone.png").symlink_to("nowhere.png")
    for command in (("index",), ("embed",)):
        arguments = ("run", folder.parent, "--output", tmp_path / "x.npz")
        done = call(*command, *arguments, cwd=shop)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert str(folder / "gone.png") in done.err
