"""What a run is asked to do: profiles, their sections, the stages, and what a notebook is handed.

Lives here: stages, schema, sections, agreement, profile, notebook. May import: the ground (lib/*.py). Nothing heavy.
"""
