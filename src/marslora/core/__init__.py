"""What all packages share: allocations, specs, runs, decisions, errors, plugins, files. Nothing here imports torch."""
