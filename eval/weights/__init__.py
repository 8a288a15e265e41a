"""The weights that metrics need: where they come from, under which licence, and the store that keeps them."""

from eval.weights.store import Problem, Record, Status, Store, default_folder
from eval.weights.table import WEIGHTS, Weight, weight

__all__ = ["WEIGHTS", "Problem", "Record", "Status", "Store", "Weight", "default_folder", "weight"]
