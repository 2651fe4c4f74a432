"""What is run beside the study: a verdict on your models, plans, checks, the committed reference, the class, the book.

`python -m lib.tools.NAME`. Nobody needs a tool to follow the study.
May import: every room; no room imports a tool.
"""
