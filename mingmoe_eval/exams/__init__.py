"""The licensing exams: their records in every published shape, their prompts, their scoring."""
