"""The study's heavy logic: one module for each arrow from parameters to claims."""

import warnings

# transformers asks tqdm for notebook widgets; the study's bars are text, so the missing widgets are no news
warnings.filterwarnings("ignore", message="IProgress not found")
