"""Find a model's parts and its adaptable layers; load, probe, and ship the embedded one."""
