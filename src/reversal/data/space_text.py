"""A product space as YAML: what the states of arrays are, for a person to read."""

from __future__ import annotations

from reversal.spaces import Product

HEAD = "# The factors of what is modelled: the space of each, and the shape of one item in it.\n"


def space_text(product: Product) -> str:
    """Return the factors of a product as YAML."""
    import yaml

    factors = {
        name: {"space": repr(part), "event_shape": list(part.event_shape)}
        for name, part in product.parts.items()
    }
    tree = {"version": 1, "factors": factors}
    return HEAD + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
