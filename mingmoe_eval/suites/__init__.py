"""Suites beside the exams and PromptCBLUE: what a task may ask for without any code of its own."""
