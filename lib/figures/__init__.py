"""What a reader sees: one theme, the study's figures, and sentences read from results.

Lives here: theme, placing, curves, plot_*, report, sentences. May import: the ground, params, tasks, analysis.
"""
