"""The final run: the chosen ranks, trained with `transformers.Trainer` and PEFT."""
