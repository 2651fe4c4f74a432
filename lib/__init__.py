"""The study's heavy logic, in eight rooms over a small ground. Imports go one way:

    ground <- params <- tasks <- { models | analysis } <- { trials | figures, claims } <- tools

The ground is errors, names (of models), offline (encoders in packages), files, store (finished work), code (hash of a
source), progress, safe_yaml.
models and analysis never import each other: they meet in the predictions table that `lib.store` keeps.
"""

import logging
import warnings

# transformers asks tqdm for notebook widgets; the study's bars are text, so the missing widgets are no news
warnings.filterwarnings("ignore", message="IProgress not found")

# transformers imports torchao with its first model, and both tell of kernels that are for other machines
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
