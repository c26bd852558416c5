"""``python -m marslora``."""

from marslora.cli import main

main()
