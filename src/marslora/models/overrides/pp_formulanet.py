"""PP-FormulaNet: the whole model declares to read images only, its tower declares nothing."""

PATHS = {"projector": ("model.encoder.multi_modal_projector",), "vision": ("model.encoder",)}
