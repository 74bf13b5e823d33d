"""The schema's history. A revision is written once and never edited after a release."""
