"""What a catalog entry says of a model's caches, held against what the model itself tells."""

from collections import Counter

from greenroom.runtime.catalog import CacheClaims
from greenroom.runtime.errors import ModelUnavailable
from greenroom.runtime.spec import CacheSpec, LayerSpec


def check_claims(claims: CacheClaims, spec: CacheSpec) -> None:
    """Raise ModelUnavailable naming the first claim that does not hold.

    Either the checkpoint is not the model that the entry describes, or the entry is wrong; in
    both cases its other statements (its codec, its context window) are not to be trusted.
    """
    kinds = Counter(c.kind if isinstance(c, LayerSpec) else "state" for c in spec.layers)
    attention = [cell for cell in spec.layers if isinstance(cell, LayerSpec)]
    found: dict[str, set[int]] = {
        "full": {kinds["full"]},
        "window": {kinds["window"]},
        "state": {kinds["state"]},
        "window_tokens": set(spec.windows),
        "heads": {cell.heads for cell in attention},
        "k_dim": {cell.k_dim for cell in attention},
        "v_dim": {cell.v_dim for cell in attention},
    }
    for field, values in found.items():
        claimed: int | None = getattr(claims, field)
        if claimed is not None and values != {claimed}:
            has = ", ".join(map(str, sorted(values))) or "none"
            raise ModelUnavailable(
                f"the catalog entry says cache.{field} = {claimed}, but the model has {has}: "
                "correct the entry or its source"
            )
