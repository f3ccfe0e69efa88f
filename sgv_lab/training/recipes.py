"""Names of `sgv_lab.training.config` as they were, until everything asks for the new ones."""

from sgv_lab.training.config import BASES as RECIPES
from sgv_lab.training.config import Machine as Run
from sgv_lab.training.config import RunConfig as Recipe
from sgv_lab.training.config import base as recipe

__all__ = ["RECIPES", "Recipe", "Run", "recipe"]
