"""From what a method left on disk to items: layouts, references, truths and prompts."""

from eval.inputs.importer import InputOptions
from eval.inputs.kinds import KINDS, detect, open_input
from eval.inputs.names import parse_view, safe_name
from eval.inputs.prompts import read_prompts
from eval.inputs.references import FirstFrame, Ring, first_frame_references, open_references, open_truths

__all__ = [
    "KINDS",
    "FirstFrame",
    "InputOptions",
    "Ring",
    "detect",
    "first_frame_references",
    "open_input",
    "open_references",
    "open_truths",
    "parse_view",
    "read_prompts",
    "safe_name",
]
