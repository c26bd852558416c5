from .api import Decision as Decision
from .api import attach as attach
from .api import compare as compare
from .api import inspect as inspect
from .api import search as search

__version__: str
