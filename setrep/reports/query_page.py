"""`setrep query --html`: what a query found, and how far to trust it, on a page that stands alone.

Each picture is embedded once, and drawn wherever it is named.
"""

from __future__ import annotations

import base64
import io
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from setrep.data.images import FORMATS, GREY_MODES, MAX_PIXELS, NOT_AN_IMAGE, read_image
from setrep.errors import InputError
from setrep.files import write_atomically
from setrep.index.records import Name
from setrep.item_format import ItemFormat
from setrep.reports.folders import below
from setrep.reports.pages import render
from setrep.reports.tables import printable
from setrep.reports.typeset import number
from setrep.retrieval.columns import label_or_id
from setrep.retrieval.results import ItemMatch, Match, Result
from setrep.set_distances import SET_DISTANCES

SIDE = 96  # pixels of a picture
SMALL = 48  # beneath it a picture is drawn with its pixels
NUM_QUERY = 60  # items of the query that are shown
MANY = 12  # items of a query are shown smaller
NUM_LARGE = 10  # collections of which more is shown
NUM_MEMBERS = {True: 12, False: 6}  # that are shown of such a collection and of others
NUM_NUMBERS = 2  # of items, on a member
MAX_PICTURES = 2_200_000  # bytes of all pictures
NOT_SHOWN, OUTSIDE = "not shown", "outside"
MAX_TEXT, MAX_METADATA = 300, 20  # letters, and entries of metadata


@dataclass(frozen=True)
class Thumbnail:
    """A file: its picture, by number, or why there is none."""

    path: str
    name: str
    picture: int | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture as a `data:` address."""

    address: str
    side: int


@dataclass
class Album:
    """Thumbnails of files, each made and embedded once, as long as there is room."""

    pictures: list[Picture] = field(default_factory=list)
    known: dict[Path, Thumbnail] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)  # of pictures, by address

    @property
    def is_full(self) -> bool:
        """Say whether the page would grow too large by more pictures."""
        return sum(map(len, self.numbers)) >= MAX_PICTURES

    def show(self, path: Path, name: str) -> Thumbnail:
        """Return the thumbnail of a file that is called `name`."""
        if path not in self.known:
            self.known[path] = self.make(path, name)
        return self.known[path]

    def make(self, path: Path, name: str) -> Thumbnail:
        """Read a file that is not known yet."""
        short = Path(name).name or name
        try:
            if not path.is_file():  # a pipe would be waited for
                return Thumbnail(name, short, why_not="missing")
            picture = read_picture(path)
        except (InputError, Image.DecompressionBombError, *NOT_AN_IMAGE):
            return Thumbnail(name, short, why_not="unreadable")
        if picture.address not in self.numbers:
            self.numbers[picture.address] = len(self.pictures)
            self.pictures.append(picture)
        return Thumbnail(name, short, self.numbers[picture.address])


@dataclass(frozen=True)
class Member:
    """A member of a found collection, and the items of the query that it is nearest to."""

    thumbnail: Thumbnail
    items: tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """An item of the query and the member nearest to it."""

    item: int
    query: Thumbnail
    member: Thumbnail
    similarity: float


@dataclass(frozen=True)
class Found:
    """A found collection as it is shown."""

    match: Match
    is_alike: bool  # of the label of the first
    is_large: bool
    metadata: list[tuple[str, str]]
    members: list[Member]
    num_members: int
    pairs: list[Pair]


@dataclass(frozen=True)
class Mark:
    """A score on the line of scores, at so many percent of its length."""

    score: float
    at: float
    is_alike: bool
    name: str


def write_query_page(
    path: Path,
    query: Sequence[Path | str],
    result: Result,
    root: str | None,
    about: dict[str, str],
) -> None:
    """Write the page of what a query of image files found.

    Sources of members are relative to `root`, or to the current directory if it is none; files
    outside of it are not opened, since who made the index chose their names. `about` says what was
    searched and how, as in `{"index": "...", "collections": "1,234", "re-ranked by": "chamfer"}`.
    Files that are missing or no images are named, without a picture.

    Raises:
        InputError: the page cannot be written; one that was there is untouched.
    """
    album = Album()
    items = [album.show(Path(file), str(file)) for file in query[:NUM_QUERY]]
    items += [
        Thumbnail(str(file), Path(file).name, why_not=NOT_SHOWN) for file in query[NUM_QUERY:]
    ]
    found = [
        find(album, match, rank, items, root, result.matches[0])
        for rank, match in enumerate(result, 1)
    ]
    page = render(
        "query.html.jinja",
        result=result,
        about=about,
        items=items,
        num_query=NUM_QUERY,
        many=MANY,
        found=found,
        marks=line_of_scores(result),
        pictures=album.pictures,
        rerank=about.get("re-ranked by"),
        is_similarity=is_similarity(about.get("re-ranked by")),
        num_numbers=NUM_NUMBERS,
        small=SMALL,
        number=number,
        digits=digits,
        short=shorten,
        text=printable,
    )
    write_atomically(path, page.encode())


def find(
    album: Album,
    match: Match,
    rank: int,
    items: Sequence[Thumbnail],
    root: str | None,
    first: Match,
) -> Found:
    """Gather what is shown of a found collection: members that match best come first."""
    is_large = rank <= NUM_LARGE
    ordered = sorted(match.items, key=lambda pair: -pair.similarity)
    matched = list(dict.fromkeys(pair.member for pair in ordered))
    others = [place for place in range(len(match.sources)) if place not in set(matched)]
    members = []
    for place in [*matched, *others][: NUM_MEMBERS[is_large]]:
        numbers = sorted(pair.query_item + 1 for pair in ordered if pair.member == place)
        members.append(Member(member_of(album, match, place, root), tuple(numbers)))
    pairs = [pair_of(album, match, pair, items, root) for pair in ordered[: NUM_MEMBERS[is_large]]]
    is_alike = kind_of(match) == kind_of(first)
    metadata = [(shorten(name), shorten(value)) for name, value in (match.metadata or {}).items()]
    return Found(
        match, is_alike, is_large, metadata[:MAX_METADATA], members, len(match.sources), pairs
    )


def pair_of(
    album: Album, match: Match, pair: ItemMatch, items: Sequence[Thumbnail], root: str | None
) -> Pair:
    """Show a pair; the pictures of both are there already, but where there was no room."""
    item = pair.query_item
    query = items[item] if item < len(items) else Thumbnail("", "")
    member = member_of(album, match, pair.member, root)
    return Pair(item + 1, query, member, pair.similarity)


def member_of(album: Album, match: Match, place: int, root: str | None) -> Thumbnail:
    """Show a member: its file below the root, or its number where no file is known."""
    name = match.sources[place] if place < len(match.sources) else ""
    if not name:
        return Thumbnail(f"member {place + 1}", f"member {place + 1}")
    path = below(root, name)
    if path is None or (album.is_full and path not in album.known):
        why_not = OUTSIDE if path is None else NOT_SHOWN
        return Thumbnail(name, Path(name).name or name, why_not=why_not)
    return album.show(path, name)


def read_picture(path: Path) -> Picture:
    """Return the centre square of an image file, small, as PNG or JPEG, whichever is shorter.

    Raises:
        InputError: it is no image, or too large.
        Exception: one of `NOT_AN_IMAGE`, likewise.
    """
    with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise InputError(f"{path} is too large.")
        side = min(SIDE, *image.size)
        channels = 1 if image.mode in GREY_MODES else 3
        image.draft(None, (2 * SIDE, 2 * SIDE))  # a large JPEG is decoded at part of its size
        pixels = read_image(image, ItemFormat("image", channels, side))
    small = Image.fromarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0))
    encoded = []
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 85})):
        out = io.BytesIO()
        small.save(out, format=kind, **options)
        encoded.append(f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}")
    return Picture(min(encoded, key=len), side)


def kind_of(match: Match) -> tuple[bool, Name]:
    """Return what a collection counts as."""
    return label_or_id(match.id, {"label": match.label})


def line_of_scores(result: Result) -> list[Mark]:
    """Place scores from the first to the last, and the one that the margin is measured to."""
    if not result.matches:
        return []
    first = result[0]
    scores = [(match.score, kind_of(match) == kind_of(first), str(match.id)) for match in result]
    if result.margin is not None and all(is_alike for _, is_alike, _ in scores):
        scores.append((first.score - result.margin, False, ""))
    span = first.score - min(score for score, *_ in scores)
    if not 0 < span < math.inf:
        return []
    return [
        Mark(score, 100 * (first.score - score) / span, is_alike, shorten(name))
        for score, is_alike, name in scores
    ]


def is_similarity(rerank: str | None) -> bool:
    """Say whether a score is a similarity of two sets, and not minus a distance."""
    return rerank in SET_DISTANCES and SET_DISTANCES[rerank].is_similarity


def shorten(value: Any) -> str:
    """Write a value of any type, and cut what is long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return printable(text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…")


def digits(score: float) -> str:
    """Write a score in four digits, small ones too without a power of ten."""
    if not 1e-8 <= abs(score) < 1e-3:
        return number(score + 0.0, 4)
    places = 3 - math.floor(math.log10(abs(score)))
    return f"{score:.{places}f}".replace("-", "−")
