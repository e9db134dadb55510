"""The page of a query: what it says equals the result, each picture is there once, it is whole."""

from __future__ import annotations

import base64
import io
import os
import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from setrep.config import resolve
from setrep.errors import InputError
from setrep.reports import query_page
from setrep.reports.query_page import (
    NUM_LARGE,
    NUM_MEMBERS,
    NUM_QUERY,
    SIDE,
    read_picture,
    write_query_page,
)
from setrep.reports.typeset import number
from setrep.retrieval import CollectionIndex, Match, Result
from setrep.retrieval.results import ItemMatch
from tests.evaluations import SETTINGS, set_encoder

# What steers a terminal or turns text around, and what has no code in UTF-8.
STEERING = ["\0", "\t", "\n", "\x1b", "\x7f", "\x9b", "\u200b", "\u202e", "\u2066", "\udcff"]
HOSTILE = "<script>alert('1')</script>\"><img src=x onerror=alert(2)>&amp;"
VOID = {"meta", "img", "br", "link", "input", "hr"}
MODEL = "the query is a random draw from its pool: the held-out items. It says nothing of others"


class Page(HTMLParser):
    """The text of a page below elements of a class or name, and whether tags nest."""

    def __init__(self, html: str):
        super().__init__()
        self.html, self.open, self.parts = html, [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        names = {tag, *(dict(attrs).get("class") or "").split()}
        if tag not in VOID:
            self.open.append((tag, names, object()))

    def handle_startendtag(self, tag, attrs):
        if tag == "use":
            self.parts.append((list(self.open), f" {dict(attrs)['href']} "))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if not {"style", "title"} & {tag for tag, *_ in self.open}:
            self.parts.append((list(self.open), data))

    def texts(self, *names: str) -> list[str]:
        """Return the text of each element that has all of these classes or names."""
        found: dict[object, str] = {}
        for opened, data in self.parts:
            for _, has, which in opened:
                if set(names) <= has:
                    found[which] = found.get(which, "") + data
        return [" ".join(text.split()) for text in found.values()]

    def text(self, *names: str) -> str:
        return self.texts(*names)[0]


def write_image(path: Path, seed: int, size: tuple[int, int] = (20, 20), mode: str = "RGB") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path)


def page_of(tmp_path, query, result, root=None, about=None) -> Page:
    write_query_page(tmp_path / "page.html", query, result, root, about or {})
    return Page((tmp_path / "page.html").read_text())


def pictures_of(html: str) -> list[Image.Image]:
    encoded = re.findall(r'href="data:image/(?:png|jpeg);base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in encoded]


def made_up(k: int, num_items: int, num_members: int, source) -> Result:
    """Return matches whose items each go with another member, the last of the query best."""
    matches = [
        Match(
            f"collection {rank}",
            -0.5 - rank,
            "cups" if rank < 2 else f"label {rank}",
            {"year": 2000 + rank},
            tuple(ItemMatch(i, i % num_members, -1.0 / (i + 1) - rank) for i in range(num_items)),
            tuple(source(rank, member) for member in range(num_members)),
        )
        for rank in range(k)
    ]
    return Result(tuple(matches), num_items, 2.0, None, "not certified")


@pytest.fixture
def files(tmp_path):
    """Return two files of a query, and the sources of four members below a root."""
    query = [write_image(tmp_path / "asked" / f"q{i}.png", i, (20, 20), "L") for i in range(2)]
    sources = tuple(f"mugs/m{i}.png" for i in range(4))
    for i, source in enumerate(sources):
        write_image(tmp_path / "root" / source, 10 + i, (20, 20), "L")
    return query, sources, str(tmp_path / "root")


def test_the_page_shows_the_result_of_a_real_query(tmp_path):
    root = tmp_path / "root"
    folders = {name: [f"{name}/{i}.png" for i in range(3)] for name in ("a/one", "a/two", "b/one")}
    paths = []
    for place, sources in enumerate(folders.values()):
        paths.append(
            [write_image(root / one, 10 * place + i, (8, 8), "L") for i, one in enumerate(sources)]
        )
    metadata = [{"year": 2020}, {}, {"sold": True}]
    encoder = set_encoder(resolve(SETTINGS), 0)
    with CollectionIndex.build(encoder, paths, list(folders), ["a", "a", "b"], metadata) as index:
        asked = [write_image(tmp_path / f"{i}.png", 50 + i, (8, 8), "L") for i in range(2)]
        result = index.query(asked, k=3)
    page = page_of(tmp_path, asked, result, root, {"collections": "3", "index": "the index"})
    assert page.text("first") == result[0].id
    assert page.texts("h3") == [match.id for match in result]
    assert page.texts("label")[1:] == [match.label for match in result]
    shown = [text.removeprefix("score ") for text in page.texts("score")]
    assert [float(text.replace("−", "-")) for text in shown] == pytest.approx(
        [match.score for match in result], rel=1e-3
    )
    told = {"a/one": "year2020", "b/one": "soldtrue"}
    assert page.texts("metadata") == [told[m.id] for m in result if m.id in told]
    assert len(pictures_of(page.html)) == 2 + 9
    assert page.texts("rank") == ["1", "2", "3"]
    assert f"None: {result.delta_note.replace('`', '')}." in page.text("verdict")
    asked = "Which of the 3 collections in the index are nearest to these 2 items, taken together?"
    assert page.text("p") == asked


def test_the_page_stands_alone_and_links_within_it_lead_somewhere(tmp_path, files):
    query, sources, root = files
    result = made_up(3, 2, 4, lambda rank, member: sources[member])
    html = page_of(tmp_path, query, result, root, {"index": "here"}).html
    assert "http" not in html
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert not re.search(r"<script|<link|<iframe|<img|@import|url\(|\bon\w+=", html)
    ids = re.findall(r'id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'<use href="#([^"]+)"', html)) == set(ids)


def test_each_picture_is_embedded_once_and_is_that_of_its_file(tmp_path, files):
    query, sources, root = files
    result = made_up(3, 2, 4, lambda rank, member: sources[member])
    page = page_of(tmp_path, [*query, query[0]], result, root)
    order = (1, 0, 2, 3)  # members that match come first
    paths = [*query, *(Path(root) / sources[member] for member in order)]
    assert len(pictures_of(page.html)) == page.html.count("data:image") == len(paths)
    for shown, path in zip(pictures_of(page.html), paths, strict=True):
        apart = np.asarray(shown).astype(int) - np.asarray(Image.open(path))
        assert np.abs(apart).mean() < 10  # as JPEG where that is shorter
    Path(root, "copy.png").write_bytes(Path(query[0]).read_bytes())
    copied = page_of(tmp_path, [query[0], Path(root, "copy.png")], Result(()))
    assert len(pictures_of(copied.html)) == 1
    assert copied.texts("figure") == ["#p0 1 q0.png", "#p0 2 copy.png"]
    asked = [part for part in page.texts("query", "ol")[0].split() if part.startswith("#p")]
    assert asked == ["#p0", "#p1", "#p0"]


def test_each_file_is_read_once(tmp_path, files, monkeypatch):
    query, sources, root = files
    read: list[Path] = []
    monkeypatch.setattr(
        query_page, "read_picture", lambda path: read.append(path) or read_picture(path)
    )
    result = made_up(3, 2, 4, lambda rank, member: (*sources[:3], "text.png")[member])
    Path(root, "text.png").write_text("no image")
    page_of(tmp_path, [*query, query[0]], result, root)
    assert len(read) == len(set(read)) == 2 + 4


def test_a_drawing_is_kept_exactly_and_a_photo_is_made_small(tmp_path):
    drawing = np.full((30, 30), 255, np.uint8)
    drawing[10:20, 5:9] = 0
    Image.fromarray(drawing).save(tmp_path / "drawing.png")
    write_image(tmp_path / "photo.jpg", 0, (900, 500))
    page = page_of(tmp_path, [tmp_path / "drawing.png", tmp_path / "photo.jpg"], Result(()))
    shown = pictures_of(page.html)
    assert [one.size for one in shown] == [(30, 30), (SIDE, SIDE)]
    assert (np.asarray(shown[0].convert("L")) == drawing).all()
    assert shown[1].format == "JPEG"
    assert page.html.count('class="raw"') == 1


def test_members_that_match_come_first_and_pairs_are_sorted(tmp_path, files):
    query, sources, root = files
    pairs = (ItemMatch(0, 3, -0.5), ItemMatch(1, 1, -0.25), ItemMatch(2, 3, -0.125))
    result = Result((Match("x", -1.0, None, {}, pairs, sources),), 3)
    page = page_of(tmp_path, [*query, query[0]], result, root)
    numbered = {name: f"#p{place}" for place, name in enumerate(["q0", "q1", "m3", "m1"])}
    members = page.text("members").split()
    assert members[:5] == [numbered["m3"], "1,", "3", numbered["m1"], "2"]
    assert members[5:] == ["#p4", "#p5"]
    assert len(page.texts("matched")) == 2
    assert [one.split() for one in page.texts("both")] == [
        [numbered[a], "→", numbered[b]] for a, b in (("q0", "m3"), ("q1", "m1"), ("q0", "m3"))
    ]
    shown = [text for text in page.texts("what") if text.startswith("item")]
    assert shown == ["item 3 −0.1250", "item 2 −0.2500", "item 1 −0.5000"]
    assert page.texts("name") == ["m3.png", "m1.png", "m3.png"]


def test_what_is_too_much_is_counted(tmp_path, files):
    query, sources, root = files
    many, few = NUM_MEMBERS[True], NUM_MEMBERS[False]
    result = made_up(NUM_LARGE + 1, 30, 40, lambda rank, member: sources[member % 4])
    page = page_of(tmp_path, query * 40, result, root)
    assert page.texts("more")[0] == f"+ {80 - NUM_QUERY} more"
    assert page.texts("more")[1:] == [f"+ {40 - many} more"] * NUM_LARGE + [f"+ {40 - few} more"]
    assert len(page.texts("both")) == NUM_LARGE * many + few
    assert page.html.count(f"+ {30 - many} pairs that are less alike") == NUM_LARGE
    assert page.html.count(f"+ {30 - few} pairs that are less alike") == 1
    assert page.text("first") == "collection 0"
    assert "The 11 nearest" in page.texts("h2")


def test_ten_collections_of_twenty_photos_stay_small(tmp_path):
    names = [write_image(tmp_path / f"{i}.png", i, (100, 100)) for i in range(205)]
    result = made_up(10, 5, 20, lambda rank, member: names[20 * rank + member])
    page = page_of(tmp_path, names[200:], result, tmp_path)
    assert len(pictures_of(page.html)) == 5 + 10 * NUM_MEMBERS[True]
    assert len(page.html.encode()) < 3_000_000


def test_pictures_end_where_the_page_would_grow_too_large(tmp_path, files, monkeypatch):
    query, sources, root = files
    result = made_up(1, 2, 4, lambda rank, member: sources[member])
    monkeypatch.setattr(query_page, "MAX_PICTURES", 1)
    page = page_of(tmp_path, query, result, root)
    assert len(pictures_of(page.html)) == 2  # those of the query
    assert [text.split()[0] for text in page.texts("members", "ul")] == ["m1.pngnot"]
    assert page.html.count("<i>not shown</i>") == 4 + 2


def test_what_cannot_be_read_is_named_and_nothing_is_raised(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    whole = Path(write_image(tmp_path / "whole.png", 0)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    size = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + size
    (tmp_path / "bomb.png").write_bytes(head + struct.pack(">I", zlib.crc32(size)))
    names = [
        "bomb.png",
        "text.png",
        "folder.png",
        "cut.png",
        "gone/gone.png",
        "whole.png",
        "",
        "nul\0.png",
    ]
    names += ["\ud800.png", "a" * 5000 + ".png", "..", "/", HOSTILE]
    expected = ["unreadable", "unreadable", "missing", "unreadable", "missing", None, ""]
    if hasattr(os, "mkfifo"):  # to open it would wait for ever
        os.mkfifo(tmp_path / "pipe.png")
        names.insert(0, "pipe.png")
        expected.insert(0, "missing")
    pairs = tuple(ItemMatch(0, place, -1.0 - place) for place in range(len(names)))
    result = Result((Match("x", 0.0, None, None, pairs, tuple(names)),), 1)
    page = page_of(tmp_path, [tmp_path / "nothing.png", *names], result, str(tmp_path))
    assert len(pictures_of(page.html)) == 1
    boxes = page.texts("members", "ul")[0]
    for name, why in zip(names, expected, strict=False):
        if why:
            assert f"{Path(name).name}{why}" in boxes
    assert f"member {names.index('') + 1}" in boxes
    assert "nothing.pngmissing" in page.texts("query", "ol")[0]


def test_files_too_large_to_decode_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(query_page, "MAX_PIXELS", 99)
    files = [write_image(tmp_path / f"{n}.png", n, (n, 10)) for n in (9, 10)]
    page = page_of(tmp_path, files, Result(()))
    assert len(pictures_of(page.html)) == 1
    assert "10.pngunreadable" in page.texts("query", "ol")[0]


def test_members_without_files_are_numbered_and_those_unknown_are_said_to_be(tmp_path, files):
    pairs = (ItemMatch(0, 3, -0.3), ItemMatch(9, 12, -0.2))
    matches = (Match("a", -1.0, 3, {}, pairs, ()), Match(7, -2.0, None, None, (), ()))
    page = page_of(tmp_path, files[0][:1], Result(matches, 10))
    assert page.text("members") == "member 1310 member 41"
    assert page.texts("h3") == ["a", "7"]
    assert page.texts("label") == ["3", "3", "no label"]
    assert "Its members are not known." in page.texts("body")[2]


def test_the_delta_is_shown_with_its_draw_and_never_as_the_chance_of_this_error(tmp_path, files):
    match = Match("a", -1.0, "x")
    said = page_of(tmp_path, files[0], Result((match,), 2, 0.5, 0.0312, MODEL)).text("verdict")
    assert "Certificate δ(2) 0.0312: of random draws of 2 items, at most this share" in said
    assert f"where {MODEL}." in said
    assert "It speaks of such draws, and not of this one answer" in said
    silent = page_of(tmp_path, files[0], Result((match,), 2, 0.5, 1.0, MODEL)).text("verdict")
    assert "δ(2) 1.00, which says nothing" in silent
    assert f"where {MODEL}." in silent
    reason = "it is proved for `this` only"
    none = page_of(tmp_path, files[0], Result((match,), 2, 0.5, None, reason)).text("verdict")
    assert "Certificate None: it is proved for this only." in none
    assert "δ" not in none
    for text in (said, silent, none):
        assert "wrong" not in text
        assert text.count("probab") == 1  # "it is no probability", of the margin


def test_the_margin_is_told_in_words(tmp_path, files):
    first, same, other = (Match(n, s, n[0]) for n, s in (("x1", -1.0), ("x2", -1.5), ("y1", -3.0)))
    page = page_of(tmp_path, files[0], Result((first, same, other), 2, 2.0))
    assert "Margin 2.000: how far the first is ahead, in score, of the best" in page.text("verdict")
    places = re.findall(r'<i class="(\w+)" style="left:([\d.]+)%" title="(\w*)"', page.html)
    assert places == [("other", "100.00", "y1"), ("alike", "25.00", "x2"), ("alike", "0.00", "x1")]
    assert 'class="ahead" style="width:100.00%"' in page.html
    page = page_of(tmp_path, files[0], Result((first, same), 2, 1.0, is_exact=False))
    assert "the best of another label, not among these" in page.text("scores")
    assert 'class="ahead" style="width:100.00%"' in page.html
    assert "It is of the collections that were looked at." in page.text("verdict")
    page = page_of(tmp_path, files[0], Result((first,), 2, 0.0))
    assert "a tie: a collection of another label has the same score" in page.text("verdict")
    assert not page.texts("scores")
    page = page_of(tmp_path, files[0], Result((Match(5, -1.0),), 2, None))
    assert "None: there is no collection of another collection" not in page.text("verdict")
    assert "None: there is no other collection to be ahead of" in page.text("verdict")


def test_unlabelled_collections_are_each_a_label_of_their_own(tmp_path, files):
    matches = (Match("x", -1.0), Match("y", -2.0), Match("z", -3.0, "x"))
    bare = page_of(tmp_path, files[0], Result(matches[:2], 2, 1.0))
    assert "label" not in bare.text("verdict")
    assert not bare.texts("label")
    page = page_of(tmp_path, files[0], Result(matches, 2, 1.0))
    assert re.findall(r'class="label (\w+)"', page.html) == ["alike", "alike", "other", "other"]
    assert "of the best other collection" in page.text("verdict")


@pytest.mark.parametrize(
    ("rerank", "is_exact", "said", "score"),
    [
        (None, True, "Exact: every collection was compared", "minus the squared distance"),
        (None, False, "Approximate: a nearer collection may", "minus the squared distance"),
        ("chamfer", False, "others were not measured, and may be nearer", "the distance chamfer"),
        ("wasserstein", True, "none that was left out can be nearer", "the distance wasserstein"),
        ("maxsim", False, "4 collections of 9 measured by maxsim", "the similarity maxsim"),
    ],
)
def test_the_page_says_how_it_was_searched_and_what_a_score_is(
    tmp_path, files, rerank, is_exact, said, score
):
    measured = None if rerank is None else 4
    result = Result((Match("a", 2.5),), 2, None, None, "", measured, is_exact)
    about = {"collections": "9"} | ({"re-ranked by": rerank} if rerank else {})
    page = page_of(tmp_path, files[0], result, None, about)
    assert said in page.text("verdict")
    assert score in page.texts("small", "p")[0]
    assert page.text("score") == "score 2.500"


def test_about_is_at_the_foot_and_no_result_is_said(tmp_path, files):
    about = {"index": "there", "filter": "label=cup", "model": "convnet"}
    page = page_of(tmp_path, files[0], Result((), 2), None, about)
    assert page.text("footer") == "indextherefilterlabel=cupmodelconvnet"
    assert page.text("first") == "No collection was found"
    assert "Filter: label=cup." in page.html.replace("<bdi>", "").replace("</bdi>", "")
    assert len(pictures_of(page.html)) == 2


def test_everything_is_escaped(tmp_path):
    metadata = {HOSTILE: HOSTILE, "nested": {"a": [HOSTILE]}, "long": "z" * 10_000}
    metadata |= {f"name {i}": i for i in range(100)}
    pairs = (ItemMatch(0, 0, -1.0),)
    result = Result(
        (Match(HOSTILE, -1.0, HOSTILE, metadata, pairs, (HOSTILE,)), Match("y", -2.0, "y")),
        *(1, 1.0, None, HOSTILE, 2),
    )
    about = {"re-ranked by": HOSTILE, "index": HOSTILE, "filter": HOSTILE, HOSTILE: HOSTILE}
    readable = write_image(tmp_path / "<script>&quot;'.png", 0)
    page = page_of(tmp_path, [HOSTILE, readable], result, "root", about)
    assert len(pictures_of(page.html)) == 1
    for tag in ("<script", "<img", 'onerror=alert(2)>"'):
        assert tag not in page.html
    assert page.text("first") == page.text("h3") == page.text("label") == HOSTILE
    assert HOSTILE in page.text("metadata")
    assert "z" * 1000 not in page.html
    assert "more" in page.text("metadata")
    assert HOSTILE in page.text("footer")
    assert HOSTILE in page.text("verdict")
    titles = re.findall(r'title="([^"]*)"', page.html)
    assert titles
    assert not any("<" in title for title in titles)


@pytest.mark.parametrize("is_named", [True, False])
def test_pictures_of_members_are_of_files_below_the_root_alone(tmp_path, monkeypatch, is_named):
    root = tmp_path / "root"
    secret = Path(write_image(tmp_path / "rooted" / "secret.png", 1))
    for place, name in enumerate(("own.png", "deep/too.png")):
        write_image(root / name, 2 + place)
    (root / "link.png").symlink_to(secret)
    (root / "linked").symlink_to(secret.parent)
    (root / "alike.png").symlink_to("own.png")
    shown = ("own.png", "deep/too.png", "alike.png", str(root / "deep" / ".." / "own.png"))
    outside = ("../rooted/secret.png", str(secret), "link.png", "linked/secret.png", "../gone.png")
    result = Result((Match("x", -1.0, None, None, (), (*shown, *outside)),), 1)
    monkeypatch.chdir(root)
    page = page_of(tmp_path, [], result, str(root) if is_named else None)
    assert len(pictures_of(page.html)) == 2
    assert page.text("members").startswith("#p0 #p1 #p0 #p0 ")
    assert page.html.count("<i>outside</i>") == len(outside)


def test_nothing_on_the_page_steers_its_reader(tmp_path):
    name = "a" + "".join(STEERING) + "b"
    pairs = (ItemMatch(0, 0, -1.0),)
    match = Match(name, -1.0, name, {name: name, "in": ["\u202e"]}, pairs, (f"{name}.png",))
    result = Result((match, Match("y", -2.0, "y")), 1, 1.0, None, f"{name} `{name}`", 2)
    about = dict.fromkeys(("re-ranked by", "index", "filter", "left out"), name)
    page = page_of(tmp_path, [f"{name}.png"], result, "root", about)
    html = (tmp_path / "page.html").read_bytes().decode()  # its ends of lines are not translated
    assert set(STEERING) & set(html) == {"\n"}
    assert not re.search(r"a\s*\ufffd*\s+\ufffd*b", html)
    seen = "a" + "\ufffd" * len(STEERING) + "b"
    assert page.text("first") == page.text("h3") == page.text("label") == seen
    assert page.text("metadata") == f'{seen}{seen}in["\ufffd"]'
    assert f"{seen} {seen}" in page.text("verdict")
    for opened, data in page.parts:
        assert seen not in data or "bdi" in {tag for tag, *_ in opened}


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path, files, monkeypatch):
    result = Result((Match("new", -1.0),), 2)
    page_of(tmp_path, files[0], Result((Match("old", -1.0),), 2))
    before = (tmp_path / "page.html").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("setrep.files.os.fsync", full)
        with pytest.raises(InputError, match="No space left"):
            write_query_page(tmp_path / "page.html", files[0], result, None, {})
    assert (tmp_path / "page.html").read_bytes() == before
    assert page_of(tmp_path, files[0], result).text("first") == "new"


@pytest.mark.parametrize("value", [0.0, -0.0, -1e-5, -0.00012345, 0.5, -12.3456, 123456.7, -1e-12])
def test_scores_have_four_digits_and_no_power_of_ten_where_they_are_small(value):
    written = query_page.digits(value).replace("−", "-").replace(",", "")
    assert float(written) == pytest.approx(value, rel=1e-3)
    assert not written.startswith("-0") or float(written) < 0
    if abs(value) > 1e-8:
        assert "e" not in written
    assert query_page.digits(1.5) == number(1.5, 4)
