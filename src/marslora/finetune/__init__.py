"""The final run, on transformers.Trainer and PEFT."""
