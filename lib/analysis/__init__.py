"""What predictions say: scores, gaps, what is forgotten, each with its interval.

Lives here: bootstrap, measures, tables, seeds, and a module for each question.
May import: the ground, params, tasks. Never models: whatever wrote the predictions table will do.
"""
