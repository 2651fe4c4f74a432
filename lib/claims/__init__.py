"""Both papers' claims, and the verdicts on them.

Lives here: declared (what is claimed), contrasts (what it compares), printed (the papers' numbers), runs and
evidence (what was measured), ledger (verdicts), bill (what it cost). May import: the ground, params, tasks, analysis.
"""
