from .api import attach as attach
from .api import compare as compare
from .api import inspect as inspect
from .api import search as search
from .decision import Decision as Decision

__version__: str
