"""Both papers' claims and ours, and how they are judged.

Lives here: declared (what is claimed), place, contrasts, matching and losing (what it compares), printed (the papers'
numbers), runs and evidence (what was measured), gates and rule (how a word is found), study, reading and ledger (each
claim's word), wording (in sentences), bill (what it cost). May import: the ground, params, tasks, analysis.
"""
