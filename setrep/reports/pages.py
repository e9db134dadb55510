"""Self-contained HTML: templates, pictures as data, and scatter plots as SVG."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from setrep.data.dataset import ItemDataset

# Ten colours that colour-blind readers tell apart best they can (after Okabe and Ito, and Tol).
COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#d55e00",
    "#56b4e9",
    "#b3a500",
    "#882255",
    "#444444",
    "#999999",
)
SIDE = 400  # of a plot's own coordinates


def render(template: str, **values: Any) -> str:
    """Fill a template of this package; all text is escaped."""
    environment = Environment(
        loader=PackageLoader("setrep.reports", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def picture(dataset: ItemDataset, item: int) -> str | None:
    """Return an image as a `data:` address, as its file shows it; none for vectors."""
    if dataset.item_format.kind != "image":
        return None
    pixels = dataset.gather([item])[0].numpy()
    if dataset.item_format.is_inverted:
        pixels = 255 - pixels
    channels = pixels[0] if len(pixels) == 1 else pixels[:3].transpose(1, 2, 0)
    out = io.BytesIO()
    Image.fromarray(channels).save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def scatter(points: NDArray[np.floating[Any]], labels: list[str]) -> Markup:
    """Draw points in the plane as SVG, in the colours of their labels, with a legend."""
    low, high = points.min(axis=0), points.max(axis=0)
    places = 10 + (points - low) / np.maximum(high - low, 1e-12) * (SIDE - 20)
    names = sorted(set(labels))
    colour = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    dots = Markup("").join(
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="{}"><title>{}</title></circle>').format(
            x, y, colour[label], label
        )
        for (x, y), label in zip(places, labels, strict=True)
    )
    legend = Markup("").join(
        Markup('<li><span style="background:{}"></span>{}</li>').format(colour[name], name)
        for name in names
    )
    return Markup(
        '<svg viewBox="0 0 {0} {0}" role="img" aria-label="Map of embeddings">{1}</svg>'
        '<ul class="legend">{2}</ul>'
    ).format(SIDE, dots, legend)
