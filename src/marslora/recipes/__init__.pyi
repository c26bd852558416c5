from ._find import find_recipe as find_recipe
