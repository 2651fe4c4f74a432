"""What is run beside the study: plans, checks, the committed reference, the class, the book.

`python -m lib.tools.NAME`. Nobody needs a tool to follow the study.
May import: every room; no room imports a tool.
"""
