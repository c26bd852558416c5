from ._find import describe_recipe as describe_recipe
from ._find import find_recipe as find_recipe
