"""What each bound says in words and as a formula: the texts of the bound-verification page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KARIMOV = "Karimov 2024"
STANDARD = "standard"
NEW = "new in setrep"

# Text between backticks is a formula, here and below.
KNOWLEDGE = {
    "a_priori": (
        "a priori",
        "the margin and distances from A to W; for lower bounds, distances within A and within W",
    ),
    "with_spread": ("with spread", "besides, spreads or weights of both collections"),
    "a_posteriori": ("a posteriori", "all distances between the two collections"),
}
# The symbol of each margin, and the triplets over which d(anchor, positive) - d(anchor, negative)
# is largest.
MARGINS = {
    "one_sided": ("m", "anchors in A, positives in B, negatives in W"),
    "symmetric": ("m_s", "anchors in A or B, positives in the other of these, negatives in W"),
    "inter_class": ("m_{AW}", "anchors in A or W, positives in the same, negatives in the other"),
}
POSITIVES = {
    "cross_collection": "from the other collection of the label",
    "same_collection": "from the anchor's own collection",
}
SYMBOLS = (
    ("A = {x_i}, B = {z_j}", "the embedded items of two collections of one label"),
    ("W = {w_k}", "those of a collection of another label"),
    ("c_1, c_2, c_3", "the centroids of A, B and W"),
    ("f(A), f(B), f(W)", "their embeddings by the aggregator; with the centroid, `c_1, c_2, c_3`"),
    ("d(x, w)", "the Euclidean distance of two items"),
    (
        "m",
        "the margin: the largest `d(x_i, z_j) − d(x_i, w_k)`; below 0 each item of A is nearer to "
        "all of B than to any of W",
    ),
    ("D", "the largest distance from an item of A to one of W"),
    ("δ_i", "the distance from `x_i` to the nearest item of W"),
    ("r_i = m + δ_i", "the radius of a ball about `x_i` that holds all of B"),
    ("V_1, V_2, V_3", "the mean squared distance of the items of A, B, W from their centroid"),
    ("D_i, D′_k", "the largest distance from `x_i` within A, from `w_k` within W"),
    ("n_1, n_3", "the numbers of items of A and of W"),
    ("(t)_+", "`t`, or 0 where `t` is negative"),
)


@dataclass(frozen=True)
class Theorem:
    """A bound in plain words: what it says, as a formula, where it is from, and when it holds."""

    title: str
    text: str
    formula: str
    source: str
    margin: Literal["one_sided", "symmetric", "inter_class"] | None = "one_sided"
    # What it bounds: distances within a label, between two, or a difference of squares.
    of: Literal["same", "other", "squares"] = "same"
    condition: str = ""  # beside what it asks of the margin


THEOREMS = {
    "karimov": Theorem(
        "Karimov's theorem",
        "The centroids of A and B lie within twice the larger of `m` and `D`.",
        "‖c_1 − c_2‖ ≤ 2 max{m, D},  D = max_{ik} d(x_i, w_k)",
        f"{KARIMOV} (T1)",
    ),
    "margin_plus_max": Theorem(
        "Margin plus D",
        "The step before the last of the same proof, which keeps what a negative margin gains.",
        "‖c_1 − c_2‖ ≤ m + D",
        f"{KARIMOV}, in the proof (T1)",
    ),
    "chamfer": Theorem(
        "Margin plus Chamfer distance",
        "Instead of the largest distance to W, the mean over A of the distance to the nearest.",
        "‖c_1 − c_2‖ ≤ m + mean_i δ_i,  δ_i = min_k d(x_i, w_k)",
        f"{NEW} (T2)",
    ),
    "q1": Theorem(
        "Quadratic bound",
        "B lies in balls about the items of A; squares take off the spread of A.",
        "‖c_1 − c_2‖^2 ≤ mean_i r_i^2 − V_1,  r_i = m + δ_i",
        f"{NEW} (T3)",
    ),
    "q12": Theorem(
        "Quadratic bound with both spreads",
        "The same, less the spread of B. Never above the quadratic bound.",
        "‖c_1 − c_2‖^2 ≤ mean_i r_i^2 − V_1 − V_2",
        f"{NEW} (T3)",
    ),
    "multi_negative": Theorem(
        "Quadratic bound from several other labels",
        "Each ball takes the smallest radius that any collection W of several allows.",
        "‖c_1 − c_2‖^2 ≤ mean_i r_i^2 − V_1 − V_2,  r_i = min_l (m_l + δ_{l,i})",
        f"{NEW} (T5)",
        condition="With each W its own margin counts.",
    ),
    "symmetric": Theorem(
        "Symmetric quadratic bound",
        "Each pair takes the smaller of two radii, about its item of A and about that of B.",
        "‖c_1 − c_2‖^2 ≤ mean_{ij} r_{ij}^2 − V_1 − V_2,  r_{ij} = m_s + min(δ(x_i), δ(z_j))",
        f"{NEW} (T4)",
        "symmetric",
    ),
    "symmetric_chamfer": Theorem(
        "Symmetric Chamfer bound",
        "Distances `a_1 ≤ a_2 ≤ …` of the items of A to W meet those of B, `b_1 ≥ b_2 ≥ …`.",
        "‖c_1 − c_2‖ ≤ m_s + mean_i min{a_i, b_i}",
        f"{NEW} (T4)",
        "symmetric",
        condition="Sizes are equal; else quantiles meet.",
    ),
    "mean_loss": Theorem(
        "From the mean triplet loss",
        "The mean distance to W, less `α`, plus the mean triplet loss of margin `α`.",
        "‖c_1 − c_2‖ ≤ mean_{ik} d(x_i, w_k) − α + mean_{ijk} (d(x_i, z_j) − d(x_i, w_k) + α)_+",
        f"{NEW} (T6)",
        None,
        condition="Any number `α`; positives in B.",
    ),
    "batch_hard": Theorem(
        "From the batch-hard triplet loss",
        "The same with the hardest triplet of each item of A.",
        "‖c_1 − c_2‖ ≤ mean_i δ_i − α + mean_i (max_j d(x_i, z_j) − δ_i + α)_+",
        f"{NEW} (T6)",
        None,
        condition="Any number `α`; positives in B.",
    ),
    "mean_distance": Theorem(
        "Mean distance of items",
        "Centroids are no further apart than items are on average.",
        "‖c_1 − c_2‖ ≤ mean_{ij} d(x_i, z_j)",
        f"{STANDARD} (T2)",
        None,
    ),
    "w1": Theorem(
        "Optimal transport",
        "The least mean distance over which the items of A can be moved onto those of B.",
        "‖c_1 − c_2‖ ≤ W_1(A, B) = min_π Σ_{ij} π_{ij} d(x_i, z_j)",
        f"{STANDARD} (T2)",
        None,
    ),
    "convex": Theorem(
        "Every embedding within its items' hull",
        "Wherever between their items two collections of one label are put.",
        "‖f(A) − f(B)‖ ≤ max_{ij} d(x_i, z_j) ≤ m + max_i δ_i",
        f"{NEW} (T2c)",
        condition="Embeddings lie in the convex hull of their items.",
    ),
    "weighted": Theorem(
        "Weighted means",
        "The quadratic bound under the weights `α`, `β` that the aggregator gave the items; "
        "spreads are weighted, too.",
        "‖f(A) − f(B)‖^2 ≤ Σ_i α_i r_i^2 − V_α − V_β",
        f"{NEW} (A1)",
        condition="Weights are at least 0 and sum to 1.",
    ),
    "total_variation": Theorem(
        "How far weights are from even",
        "The distance of the centroids, which it takes as known, and what uneven weights may add: "
        "near 1 where weights are nearly even.",
        "‖f(A) − f(B)‖ ≤ ‖c_1 − c_2‖ + TV(α) diam A + TV(β) diam B",
        f"{STANDARD} (A2)",
        None,
        condition="Weights are at least 0 and sum to 1.",
    ),
    "normalized": Theorem(
        "Embeddings of unit length",
        "`U`, which is q12 or weighted, bounds the distance before embeddings of lengths "
        "`R_1`, `R_2` are brought to unit length.",
        "‖f(A)/R_1 − f(B)/R_2‖ ≤ 2 U / (R_1 + R_2)",
        f"{STANDARD}: Dunkl and Williams (A10)",
        condition="The lengths are above 0.000001.",
    ),
    "gem": Theorem(
        "Generalised means",
        "Of a power `p`; dim is the number of coordinates. The second for `p ≥ 2` and `n` items "
        "in each collection; the smaller counts.",
        "‖f(A) − f(B)‖ ≤ dim^{(1/2 − 1/p)_+} (mean_i r_i^p)^{1/p},  "
        "‖f(A) − f(B)‖ ≤ n^{1/2 − 1/p} (mean_i r_i^2)^{1/2}",
        f"{NEW} (A7)",
        condition="`p ≥ 1`; coordinates are not negative, as the aggregator clamps them.",
    ),
    "max": Theorem(
        "The largest of each coordinate",
        "Each coordinate of the embedding is one of its items'; dim is how many there are.",
        "‖f(A) − f(B)‖ ≤ √dim (m + max_i δ_i)",
        f"{NEW} (A11)",
    ),
    "coordinatewise": Theorem(
        "Medians, quantiles and trimmed means",
        "Each coordinate lies between its items' least and largest; `k` such embeddings are "
        "joined.",
        "‖f(A) − f(B)‖ ≤ √(k dim) (m + max_i δ_i)",
        f"{NEW} (A11)",
    ),
    "mean_std": Theorem(
        "Means and deviations",
        "Both move by no more than the items do when A is carried onto B.",
        "‖f(A) − f(B)‖ ≤ W_2(A, B) ≤ (mean_i r_i^2)^{1/2}",
        f"{NEW} (A12)",
    ),
    "deep_sets": Theorem(
        "Deep Sets",
        "Of a network `ρ` of mean features `φ` and a linear term `M`; `Q_{12}` is q12 of the "
        "items, `Q_{12}^φ` of the features, `L_ρ` the product of the norms of the layers of `ρ`.",
        "‖f(A) − f(B)‖ ≤ ‖M‖ Q_{12} + L_ρ Q_{12}^φ",
        f"{NEW} (A9)",
        condition="The margin of the features counts, too.",
    ),
    "lb1": Theorem(
        "Centroids of two labels",
        "What margin and spreads leave between two labels; 0, which says nothing, where the right "
        "side is negative.",
        "‖c_1 − c_3‖^2 ≥ mean_{ik} (max(D_i, D′_k) − m_{AW})_+^2 − V_1 − V_3",
        f"{NEW} (T8)",
        "inter_class",
        "other",
    ),
    "lb0": Theorem(
        "Centroids of two labels, from reaches alone",
        "Without the spreads. Never above lb1; 0, which says nothing, where the right side is "
        "negative.",
        "‖c_1 − c_3‖^2 ≥ ½ mean_i [(D_i − m_{AW})_+^2 − (1 − 1/n_1) D_i^2] "
        "+ ½ mean_k [(D′_k − m_{AW})_+^2 − (1 − 1/n_3) D′_k^2]",
        f"{NEW} (T8)",
        "inter_class",
        "other",
    ),
    "margin_hull": Theorem(
        "Hulls of two labels, from the margin",
        "If all triplets in both directions are satisfied by `γ`, the convex hulls of the items "
        "are apart, and with them all embeddings within; else it is 0 and says nothing.",
        "‖f(A) − f(W)‖ ≥ √(γ^2 + γ (min_i D_i + min_k D′_k)) ≥ γ,  γ = (−m_{AW})_+",
        f"{NEW} (T9)",
        "inter_class",
        "other",
        "Embeddings lie in the convex hull of their items.",
    ),
    "hull_lower": Theorem(
        "Distance of hulls",
        "Embeddings within the convex hulls of their items are no nearer than the hulls, as a "
        "direction that parts them certifies.",
        "‖f(A) − f(W)‖ ≥ dist(conv A, conv W)",
        f"{STANDARD} (T10)",
        None,
        "other",
        "Embeddings lie in the convex hull of their items.",
    ),
    "hull_upper": Theorem(
        "Largest distance of items",
        "Nor are they further apart than the items that are furthest apart.",
        "‖f(A) − f(W)‖ ≤ max_{ik} d(x_i, w_k)",
        f"{STANDARD} (T10)",
        None,
        "other",
        "Embeddings lie in the convex hull of their items.",
    ),
    "normalized_lower": Theorem(
        "Two labels at unit length",
        "With `R_1`, `R_3` the lengths before, and `h` the distance of the hulls.",
        "‖f(A)/R_1 − f(W)/R_3‖^2 ≥ (h^2 − (R_1 − R_3)^2)_+ / (R_1 R_3)",
        f"{STANDARD} (A10)",
        None,
        "other",
        "The lengths are above 0.000001; embeddings lay in the convex hull before.",
    ),
    "score_gap": Theorem(
        "Gap of corrected scores",
        "For a query A, the score `‖c_1 − c‖^2 + V` ranks B before W where the left is above 0. In "
        "squared units.",
        "(‖c_1 − c_3‖^2 + V_3) − (‖c_1 − c_2‖^2 + V_2) ≥ mean_i (δ_i^2 − max_j d(x_i, z_j)^2)",
        f"{NEW} (T11)",
        None,
        "squares",
    ),
}
