"""Papers' methods as combinations of kinds: one file each, named by ``--method``. Its function returns a `Recipe`."""
