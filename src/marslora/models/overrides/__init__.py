"""The parts that discovery cannot find by itself: one small file per family, named after its `model_type`.

A file holds ``PATHS``: ``{part: (module paths,)}``. A part named there is found nowhere else; a part inside another
one's path comes first.
"""
