"""Experiments with models: doses of the shortcut, mends, attacks, what a model costs to run, a reader's own.

Lives here: doses, mitigation, mends, candidates, attack, robustness, costs, runtimes, your_model, noise,
judging, sheets.
May import: the ground, params, tasks, models, analysis.
"""
