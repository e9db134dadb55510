"""The report of the suite: what each method finds beside the centroid, and whether bounds held."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.aggregation.compare import holm
from evaluation.aggregation.plan import LEARNED
from evaluation.aggregation.tables import shown, spread
from evaluation.retrieval.calibration import BOUNDS
from evaluation.retrieval.compare import Found, gather
from evaluation.retrieval.measure import VALUES
from evaluation.retrieval.plan import CENTROID, NUM_CANDIDATES, SUITE, Cell, Method
from setrep.files import write_atomically

EXPLAINED = (
    "Collection retrieval on classes that were not trained on, in percent: mean over seeds, ± "
    "standard deviation over seeds. Every method meets the same queries and galleries. Differences "
    "are from the centroid, in points, with 95 % intervals over classes; 'p' is that of recall@1, "
    "corrected by Holm for the number of methods. Aggregators are compared by Euclidean distance; "
    "'learned' ones were trained on the frozen embeddings of the training classes, on clean "
    "collections. Set distances are compared with all collections of the gallery.",
)
TITLES = {"triangle": "R1", "half_space": "R2", "chernoff": "R3", "bound": "least of R2 and R3"}
HEADS = {"recall_at_1": "recall@1", "recall_at_5": "recall@5", "map_at_r": "MAP@R"}


def write_table(budget: str, cells: Sequence[Cell], results: Path) -> str:
    """Write `table.md` of what is there, and return it."""
    found = gather(cells, results)
    seeds = sum(len(of.seeds) for of in found.values())
    lines = [f"# {SUITE}, budget {budget}", "", f"{seeds} of {len(cells)} cells are done.", ""]
    lines += [claim([row for of in found.values() for row in of.calibration]), "", *EXPLAINED, ""]
    for source, of in found.items():
        lines += [f"## {source}", ""]
        for part in (all_sizes, each_size, two_stages, calibration):
            lines += [*part(of), ""]
    text = "\n".join(lines)
    write_atomically(results / SUITE / budget / "table.md", text.encode())
    return text


def claim(rows: Sequence[dict[str, Any]]) -> str:
    """Say whether no lower limit of a measured error was above a bound."""
    total = sum(row["num_checks"] for row in rows)
    wrong = sum(row["num_violations"] for row in rows)
    if not total:
        return "Calibration of the certificates was not measured."
    informative = sum(row["num_below_1"] for row in rows)
    return (
        f"Claim: the lower 95 % Clopper-Pearson limit of the measured error is never above the "
        f"bound, {min(row['num_queries'] for row in rows)} queries for each label and size. "
        f"{'Failed' if wrong else 'Passed'}: {wrong} of {total} limits were above "
        f"(each of R1, R2, R3 and the least of R2 and R3; {informative} of the bounds were below "
        f"1, where a limit can be above)."
    )


def all_sizes(found: Found) -> list[str]:
    """Tabulate all methods, mean over sizes above 1."""
    sizes = [size for size in found.sizes if size > 1]
    others = [method for method in found.methods if method != CENTROID]
    gaps = {
        (method, value): found.gap((method, value), (CENTROID, value), sizes)
        for method in others
        for value in VALUES
    }
    corrected = dict(
        zip(others, holm([gaps[method, VALUES[0]].p_value for method in others]), strict=True)
    )
    heads = " | ".join(f"{HEADS[value]} | difference" for value in VALUES)
    lines = [
        f"Mean over sizes {', '.join(map(str, sizes))}; at least {found.fewest_queries} queries "
        f"of each size and seed, {len(found.seeds)} seeds, {found.by_class.shape[-1]} classes.",
        "",
        f"| method | {heads} | p |",
        "|---" * (2 + 2 * len(VALUES)) + "|",
    ]
    for method in found.methods:
        row = [name_of(method)]
        for value in VALUES:
            row.append(spread(found.mean(method, value, sizes)))
            row.append(shown(gaps[method, value]) if method in corrected else "")
        row.append(f"{corrected[method]:.3f}" if method in corrected else "")
        lines.append(f"| {' | '.join(row)} |")
    return lines


def each_size(found: Found) -> list[str]:
    """Tabulate recall@1 of all methods at each size."""
    heads = " | ".join(f"size {size} | difference" for size in found.sizes)
    lines = [
        "Recall@1 at each size:",
        "",
        f"| method | {heads} |",
        "|---" * (1 + 2 * len(found.sizes)) + "|",
    ]
    value = VALUES[0]
    for method in found.methods:
        row = [name_of(method)]
        for size in found.sizes:
            row.append(f"{100 * found.mean(method, value, [size]).mean():.1f}")
            is_base = method == CENTROID
            row.append(
                "" if is_base else shown(found.gap((method, value), (CENTROID, value), [size]))
            )
        lines.append(f"| {' | '.join(row)} |")
    return lines


def two_stages(found: Found) -> list[str]:
    """Tabulate what re-ranking the nearest centroids loses against brute force."""
    sizes = [size for size in found.sizes if size > 1]
    heads = " | ".join(f"{HEADS[value]} | less brute force" for value in VALUES)
    lines = [
        f"Two stages: the {NUM_CANDIDATES} nearest centroids, ordered by the distance; mean over "
        f"sizes above 1. 'Less brute force': less the same distance to the whole gallery; 'less "
        f"centroid': recall@1 less that of the centroid alone. 'Nearest found' and 'five nearest "
        f"found' are the shares of what is nearest by that distance that are among the candidates.",
        "",
        f"| set distance | {heads} | less centroid | nearest found | five nearest found |",
        "|---" * (4 + 2 * len(VALUES)) + "|",
    ]
    for method in found.methods:
        if method.kind != "set distance":
            continue
        row = [method.name]
        for value in VALUES:
            staged = (method, f"two_stage_{value}")
            row.append(spread(found.mean(*staged, sizes)))
            row.append(shown(found.gap(staged, (method, value), sizes)))
        first = VALUES[0]
        row.append(shown(found.gap((method, f"two_stage_{first}"), (CENTROID, first), sizes)))
        row += [spread(found.mean(method, f"found_top{k}", sizes)) for k in (1, 5)]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def calibration(found: Found) -> list[str]:
    """Tabulate certificates and measured errors, of all labels and seeds together."""
    heads = " | ".join(f"{TITLES[name]}: median | largest | violations" for name in BOUNDS)
    lines = [
        "Certificates: the gallery holds a centroid of each label, queries are of n other items "
        "of the label. Error and bounds in percent: mean over labels and seeds; the largest of "
        "any label and seed; of bounds the median over labels (mean of seeds) and the largest. "
        "'violations': labels and seeds whose lower limit is above the bound.",
        "",
        f"| encoder | n | checks | mean error | largest | {heads} |",
        "|---" * (5 + 3 * len(BOUNDS)) + "|",
    ]
    keys = dict.fromkeys((row["encoder"], row["size"]) for row in found.calibration)
    for encoder, size in keys:
        rows = {
            name: [
                row
                for row in found.calibration
                if (row["encoder"], row["size"], row["bound"]) == (encoder, size, name)
            ]
            for name in BOUNDS
        }
        first = rows[BOUNDS[0]]
        cells = [
            encoder,
            str(size),
            str(sum(row["num_checks"] for row in first)),
            percent(sum(row["error_mean"] for row in first) / len(first)),
            percent(max(row["error_max"] for row in first)),
        ]
        for name in BOUNDS:
            cells.append(percent(sum(row["bound_median"] for row in rows[name]) / len(first)))
            cells.append(percent(max(row["bound_max"] for row in rows[name])))
            cells.append(str(sum(row["num_violations"] for row in rows[name])))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def percent(value: float) -> str:
    """Write a probability in percent; small ones with their first digit."""
    return f"{100 * value:.1f}" if value >= 0.001 or value == 0 else f"{100 * value:.1g}"


def name_of(method: Method) -> str:
    """Name a method for people."""
    if method.kind == "set distance":
        return f"{method.name} (set distance)"
    return f"{method.name}{', learned' if method.name in LEARNED else ''}"
