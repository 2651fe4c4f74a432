"""What a run is asked to do: profiles, their sections, the stages, and what a notebook is handed.

Lives here: schema, sections, profile, notebook, stages. May import: the ground (lib/*.py). Nothing heavy.
"""
