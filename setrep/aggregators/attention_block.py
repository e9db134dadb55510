"""The block that set transformers are built of."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from setrep.aggregators.checks import check_heads


class MultiheadAttentionBlock(nn.Module):
    r"""Let each query attend to a set, then pass it through a layer (Lee et al. 2019, Eqs. 6, 7).

    $$ \mathrm{MAB}(X, Y) = \mathrm{LayerNorm}(H + \mathrm{rFF}(H)), \quad
       H = \mathrm{LayerNorm}(X + \mathrm{Multihead}(X, Y, Y)) $$

    Head $j$ of the attention is
    $\mathrm{softmax}\big(X W_j^Q (Y W_j^K)^\top / \sqrt{d / h}\big) Y W_j^V$; the heads are joined
    and mapped by $W^O$. $\mathrm{rFF}$ is one linear layer and a ReLU. It starts small, and
    $W^O$ at zero, so the block starts close to the layer normalisation of `X`.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)
        self.attended_norm = nn.LayerNorm(dim)
        self.feedforward = small_layer(dim)
        self.norm = nn.LayerNorm(dim)
        nn.init.zeros_(self.output.weight)

    def forward(
        self,
        x: Float[Tensor, "collection query dim"],
        y: Float[Tensor, "collection item dim"],
        mask: Bool[Tensor, "collection item"] | None = None,
    ) -> Float[Tensor, "collection query dim"]:
        """Attend from `x` to the items of `y`, to those alone where `mask` is true."""
        heads = scaled_dot_product_attention(
            self._by_head(self.query(x)),
            self._by_head(self.key(y)),
            self._by_head(self.value(y)),
            attn_mask=None if mask is None else mask[:, None, None, :],
        )
        return self.finish(x, heads.transpose(1, 2).flatten(2))

    def finish(
        self, x: Float[Tensor, "*query dim"], heads: Float[Tensor, "*query dim"]
    ) -> Float[Tensor, "*query dim"]:
        """Add what the heads found to the queries, and pass the sums through the layer."""
        hidden = self.attended_norm(x + self.output(heads))
        out: Tensor = self.norm(hidden + self.feedforward(hidden).relu())
        return out

    def _by_head(
        self, x: Float[Tensor, "collection n dim"]
    ) -> Float[Tensor, "collection head n width"]:
        width = x.shape[2] // self.num_heads
        return x.reshape(*x.shape[:2], self.num_heads, width).transpose(1, 2)


def small_layer(dim: int) -> nn.Linear:
    """Build a linear layer that maps vectors to ones about a tenth of their length at first."""
    layer = nn.Linear(dim, dim)
    nn.init.normal_(layer.weight, std=0.1 / dim**0.5)
    nn.init.zeros_(layer.bias)
    return layer
