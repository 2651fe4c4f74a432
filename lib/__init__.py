"""The study's heavy logic: one module for each arrow from parameters to claims."""
