"""Names that are no plugins."""


class Broken:
    """A class that is none of marslora's."""


def function(options: object) -> object:
    """A function that is no recipe."""
    return options
