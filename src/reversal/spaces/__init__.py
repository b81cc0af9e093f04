"""Where data live: one file per space."""

from reversal.spaces.categorical import Categorical
from reversal.spaces.counts import Counts
from reversal.spaces.euclidean import Euclidean
from reversal.spaces.product import Product
from reversal.spaces.simplex import Simplex
from reversal.spaces.so3 import SO3
from reversal.spaces.torus import Torus

__all__ = ["SO3", "Categorical", "Counts", "Euclidean", "Product", "Simplex", "Torus"]
