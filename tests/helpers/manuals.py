"""Runs the examples in the docstring of a package."""

import re
import textwrap


def run_examples(module, namespace=None):
    """Run the indented blocks after ``::`` that contain Python, one after the other, in one namespace."""
    namespace = {} if namespace is None else namespace
    examples = [textwrap.dedent(block) for block in re.findall(r"::\n\n((?:    .*\n|\n)+)", module.__doc__ + "\n")]
    python = [example for example in examples if re.search(r"^(from|import) ", example, re.MULTILINE)]
    assert python, f"{module.__name__} has no example"
    for example in python:
        exec(compile(example, f"<example of {module.__name__}>", "exec"), namespace)
    return namespace
