"""T5Gemma 2: `get_encoder` names the text encoder, which holds the vision tower."""

PATHS = {
    "projector": ("model.encoder.multi_modal_projector",),
    "vision": ("model.encoder.vision_tower",),
    "language": ("model.encoder.text_model", "model.decoder"),
}
