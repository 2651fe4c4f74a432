"""The book: executed notebooks as one folder of HTML."""
