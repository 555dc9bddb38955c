"""Network files that are valid in form and wrong in meaning: `python -m fuzzing`, `make fuzz`."""
